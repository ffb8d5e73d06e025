"""Shape or texture: which of the two an observer goes by where they conflict."""

from collections.abc import Hashable
from typing import Literal

import numpy as np

from robust_bench.metrics._columns import Labels, check_lengths, labels

_NO_ANSWER = (None, "na")


def shape_bias(decisions: Labels, shapes: Labels, textures: Labels) -> float:
    """Give the share of shape among the decisions for either shape or texture.

    Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
    robustness", ICLR 2019, arXiv:1811.12231: n_shape / (n_shape + n_texture) over the trials whose shape and texture
    are different classes. Trials without such a conflict are left out; a decision for any third class, or none ("na"
    or None), is neither.

    Args:
        decisions: N classes, as names or indices; see `decide`.
        shapes: N classes of the shape.
        textures: N classes of the texture.

    Returns:
        A fraction, 1 if every decision goes by shape. Trials of several people together give the pooled shape bias.

    Raises:
        TypeError: if one of the three is no sequence, or some are names and others indices.
        ValueError: if they are empty or of different lengths, there is no conflict, or no decision is for either.

    Examples:
        >>> shape_bias(["cat", "dog", "car", "cat"], ["cat", "dog", "boat", "oven"], ["oven", "bird", "car", "bear"])
        0.6666666666666666
    """
    shape, texture, _ = _counts(decisions, shapes, textures)
    if shape + texture == 0:
        raise ValueError("no decision is for the shape or the texture: the shape bias is not defined")
    return shape / (shape + texture)


def cue_share(decisions: Labels, shapes: Labels, textures: Labels) -> float:
    """Give the share of conflict trials that are decided for either shape or texture.

    It belongs beside every shape bias (Geirhos et al., ICLR 2019, arXiv:1811.12231), which says nothing about how
    many decisions it rests on. The common code divides by all trials instead, those without a conflict included.

    Args:
        decisions: N classes, as names or indices; see `decide`.
        shapes: N classes of the shape.
        textures: N classes of the texture.

    Returns:
        A fraction.

    Raises:
        TypeError: if one of the three is no sequence, or some are names and others indices.
        ValueError: if they are empty or of different lengths, or there is no conflict.

    Examples:
        >>> cue_share(["cat", "dog", "car", "cat"], ["cat", "dog", "boat", "oven"], ["oven", "bird", "car", "bear"])
        0.75
    """
    shape, texture, conflicts = _counts(decisions, shapes, textures)
    return (shape + texture) / conflicts


def human_shape_bias(
    decisions: Labels,
    shapes: Labels,
    textures: Labels,
    observers: Labels,
    average: Literal["trials", "observers"] = "trials",
) -> float:
    """Give the shape bias of several people.

    Geirhos et al., ICLR 2019, arXiv:1811.12231. Both averages are in use: their ten people have a shape bias of 0.959
    over pooled trials and of 0.958 as the mean of ten.

    Args:
        decisions: N classes, as names or indices.
        shapes: N classes of the shape.
        textures: N classes of the texture.
        observers: N names, whose decision it is.
        average: "trials" pools the decisions of all people, "observers" is the mean of every person's shape bias.

    Returns:
        A fraction.

    Raises:
        TypeError: if one of the four is no sequence, or some classes are names and others indices.
        ValueError: if they are empty or of different lengths, the average is unknown, or the shape bias is not
            defined, with "observers" for one of them.

    Examples:
        >>> columns = ["cat", "cat", "oven"], ["cat", "cat", "cat"], ["oven", "oven", "oven"], ["A", "A", "B"]
        >>> human_shape_bias(*columns), human_shape_bias(*columns, average="observers")
        (0.6666666666666666, 0.5)
    """
    if average not in ("trials", "observers"):
        raise ValueError(f"average must be 'trials' or 'observers', got {average!r}")
    answers, forms, surfaces = labels("decisions", decisions), labels("shapes", shapes), labels("textures", textures)
    people = labels("observers", observers)
    check_lengths(decisions=answers, shapes=forms, textures=surfaces, observers=people)
    if average == "trials":
        return shape_bias(answers, forms, surfaces)
    mine: dict[Hashable, list[int]] = {}
    for position, person in enumerate(people):
        mine.setdefault(person, []).append(position)
    biases = []
    for person, positions in mine.items():
        columns = [[column[position] for position in positions] for column in (answers, forms, surfaces)]
        try:
            biases.append(shape_bias(*columns))
        except ValueError as error:
            raise ValueError(f"observer {person!r}: {error}") from error
    return float(np.mean(biases))


def _counts(decisions: Labels, shapes: Labels, textures: Labels) -> tuple[int, int, int]:
    """Count decisions for the shape, for the texture, and trials in conflict."""
    answers, forms, surfaces = labels("decisions", decisions), labels("shapes", shapes), labels("textures", textures)
    check_lengths(decisions=answers, shapes=forms, textures=surfaces)
    for name, column in (("shapes", forms), ("textures", surfaces)):
        if any(value in _NO_ANSWER for value in column):
            raise ValueError(f"{name} must name a class in every trial: only a decision may be None or 'na'")
    kinds = {name: _kinds(column) for name, column in (("shapes", forms), ("textures", surfaces))}
    if kinds["shapes"].isdisjoint(kinds["textures"]):
        raise TypeError(
            f"shapes and textures must both be names or both be indices, got {_words(kinds['shapes'])} and "
            f"{_words(kinds['textures'])}"
        )
    answered = _kinds([answer for answer in answers if answer not in _NO_ANSWER])
    if answered and answered.isdisjoint(kinds["shapes"]):
        raise TypeError(
            f"decisions must be classes like the shapes, got {_words(answered)} among shapes that are "
            f"{_words(kinds['shapes'])}"
        )
    conflicts = [trial for trial in zip(answers, forms, surfaces, strict=True) if trial[1] != trial[2]]
    if not conflicts:
        raise ValueError(f"shape and texture are the same class in all {len(forms)} trials: give trials in conflict")
    return (
        sum(answer == form for answer, form, _ in conflicts),
        sum(answer == surface for answer, _, surface in conflicts),
        len(conflicts),
    )


def _kinds(column: list[Hashable]) -> set[str]:
    return {"names" if isinstance(value, str) else "indices" for value in column}


def _words(kinds: set[str]) -> str:
    return " and ".join(sorted(kinds))
