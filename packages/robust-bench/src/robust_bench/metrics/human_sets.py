"""Models beside people on the 17 model-vs-human sets: which conditions count, and in which order means are taken.

Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021, arXiv:2106.07411.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from robust_bench.metrics._columns import truths
from robust_bench.metrics.consistency import Measure, error_consistency

Trials: TypeAlias = Mapping[str, Mapping[Any, bool]]
"""What one observer did on one set: condition -> stimulus id -> whether the answer is right."""

LEFT_OUT_CONDITIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sketch": (),
        "stylized": (),
        "edge": (),
        "silhouette": (),
        "cue-conflict": (),
        "colour": ("cr",),
        "contrast": ("c100", "c03", "c01"),
        "high-pass": ("inf", "0.55", "0.45", "0.4"),
        "low-pass": ("0", "15", "40"),
        "phase-scrambling": ("0", "150", "180"),
        "power-equalisation": ("0",),
        "false-colour": ("True",),
        "rotation": ("0",),
        "eidolonI": ("1-10-10", "64-10-10", "128-10-10"),
        "eidolonII": ("1-3-10", "32-3-10", "64-3-10", "128-3-10"),
        "eidolonIII": ("1-0-10", "16-0-10", "32-0-10", "64-0-10", "128-0-10"),
        "uniform-noise": ("0.0", "0.6", "0.9"),
    }
)
"""Of every set, the conditions that no score uses: those without distortion, or where people are right in less than a
fifth of the trials."""


def kept_conditions(
    dataset: str, conditions: Sequence[str], left_out: Mapping[str, Sequence[str]] = LEFT_OUT_CONDITIONS
) -> tuple[str, ...]:
    """Give the conditions of a set that scores use, in their order.

    Geirhos et al., NeurIPS 2021, arXiv:2106.07411.

    Args:
        dataset: name of the set, a key of `left_out`.
        conditions: the conditions that there are, as in the files: "c05", "0.35".
        left_out: for every set, the conditions to leave out. Give your own for other sets.

    Returns:
        At least one condition.

    Raises:
        TypeError: if a condition is not text.
        ValueError: if the set is unknown, or nothing is left of it.

    Examples:
        >>> kept_conditions("contrast", ["c100", "c50", "c30", "c01"])
        ('c50', 'c30')
    """
    if dataset not in left_out:
        raise ValueError(
            f"unknown set {dataset!r}, known are {', '.join(left_out)}: for another one give "
            f"left_out={{{dataset!r}: ()}}"
        )
    for condition in conditions:
        if not isinstance(condition, str):
            raise TypeError(
                f"conditions of {dataset} must be text as in the file names, got {type(condition).__name__} "
                f"{condition!r}: read the column as text"
            )
    kept = tuple(condition for condition in conditions if condition not in left_out[dataset])
    if not kept:
        raise ValueError(f"no condition of {dataset} is left: got {list(conditions)}, all of which scores leave out")
    return kept


def ood_accuracy(observer: Mapping[str, Trials], left_out: Mapping[str, Sequence[str]] = LEFT_OUT_CONDITIONS) -> float:
    """Give the accuracy out of distribution: of every set over the trials of its kept conditions, then the sets' mean.

    Geirhos et al., NeurIPS 2021, arXiv:2106.07411. Within a set the trials are pooled, as the authors' code does; the
    paper averages the accuracies of conditions, which is the same where all have as many trials.

    Args:
        observer: set -> condition -> stimulus id -> whether the answer is right.
        left_out: see `kept_conditions`.

    Returns:
        A fraction.

    Raises:
        TypeError: if the answers are not boolean.
        ValueError: if there is no set, or a set is unknown or has no kept condition or no trial.

    Examples:
        >>> noise = {"0.0": {"a": True, "b": True}, "0.35": {"c": True, "d": False}}
        >>> ood_accuracy({"uniform-noise": noise, "sketch": {"0": {"e": True}}})
        0.75
    """
    if not observer:
        raise ValueError("observer is empty: give the trials of at least one set")
    shares = []
    for dataset, trials in observer.items():
        kept = kept_conditions(dataset, list(trials), left_out)
        answers = [_right(f"{dataset}, condition {condition}", trials[condition]) for condition in kept]
        shares.append(np.mean(np.concatenate(answers)))
    return float(np.mean(shares))


def mean_over_humans(
    model: Mapping[str, Trials],
    humans: Mapping[str, Mapping[str, Trials]],
    measure: Measure = error_consistency,
    left_out: Mapping[str, Sequence[str]] = LEFT_OUT_CONDITIONS,
) -> float:
    """Give the mean of a measure between a model and people: over conditions first, then people, then sets.

    Geirhos et al., NeurIPS 2021, arXiv:2106.07411.

    Args:
        model: set -> condition -> stimulus id -> whether the answer is right.
        humans: set -> person -> condition -> stimulus id -> whether the answer is right. The same sets.
        measure: `error_consistency`, `observed_consistency` or `accuracy_difference`.
        left_out: see `kept_conditions`.

    Returns:
        The mean.

    Raises:
        TypeError: if the answers are not boolean.
        ValueError: if there is no set, the sets, conditions or stimuli differ, or a set has nobody or no kept
            condition; the message names the set, the person and the condition.

    Examples:
        >>> model = {"edge": {"0": {"cat1": True, "dog7": False}}}
        >>> people = {"edge": {"A": model["edge"], "B": {"0": {"cat1": False, "dog7": True}}}}
        >>> mean_over_humans(model, people)  # 1 with A, -1 with B
        0.0
    """
    if set(model) != set(humans):
        differ = sorted(set(model) ^ set(humans))
        raise ValueError(f"the model and the people must have the same sets, they differ in {', '.join(differ)}")
    _check_people(humans, least=1)
    means = []
    for dataset, trials in model.items():
        people = humans[dataset].items()
        ours = [_over_conditions(dataset, ("the model", trials), person, measure, left_out) for person in people]
        means.append(np.mean(ours))
    return float(np.mean(means))


def mean_over_human_pairs(
    humans: Mapping[str, Mapping[str, Trials]],
    measure: Measure = error_consistency,
    left_out: Mapping[str, Sequence[str]] = LEFT_OUT_CONDITIONS,
) -> float:
    """Give the mean of a measure between people: over conditions first, then pairs of people, then sets.

    Geirhos et al., NeurIPS 2021, arXiv:2106.07411: what a model is compared with, `mean_over_humans`.

    Args:
        humans: set -> person -> condition -> stimulus id -> whether the answer is right. At least two people a set.
        measure: `error_consistency`, `observed_consistency` or `accuracy_difference`.
        left_out: see `kept_conditions`.

    Returns:
        The mean; every pair counts once.

    Raises:
        TypeError: if the answers are not boolean.
        ValueError: if there is no set, the conditions or stimuli differ, or a set has fewer than two people or no
            kept condition; the message names the set, the people and the condition.

    Examples:
        >>> one, other = {"cat1": True, "dog7": False}, {"cat1": False, "dog7": False}
        >>> mean_over_human_pairs({"edge": {"A": {"0": one}, "B": {"0": one}, "C": {"0": other}}})  # 1, 0 and 0
        0.3333333333333333
    """
    _check_people(humans, least=2)
    means = []
    for dataset, people in humans.items():
        pairs = combinations(people.items(), 2)
        means.append(np.mean([_over_conditions(dataset, one, other, measure, left_out) for one, other in pairs]))
    return float(np.mean(means))


def _over_conditions(
    dataset: str,
    one: tuple[str, Trials],
    other: tuple[str, Trials],
    measure: Measure,
    left_out: Mapping[str, Sequence[str]],
) -> float:
    (name, mine), (their_name, theirs) = one, other
    kept = kept_conditions(dataset, list(mine), left_out)
    their_kept = kept_conditions(dataset, list(theirs), left_out)
    if set(kept) != set(their_kept):
        raise ValueError(
            f"{dataset}: {name} and {their_name} must have the same conditions, got {list(kept)} and {list(their_kept)}"
        )
    values = []
    for condition in kept:
        try:
            values.append(measure(mine[condition], theirs[condition]))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{dataset}, condition {condition}, {name} and {their_name}: {error}") from error
    return float(np.mean(values))


def _check_people(humans: Mapping[str, Mapping[str, Trials]], least: int) -> None:
    if not humans:
        raise ValueError("humans is empty: give the trials of at least one set")
    for dataset, people in humans.items():
        if len(people) < least:
            raise ValueError(f"{dataset} must have at least {least} people, got {len(people)}")


def _right(name: str, answers: Mapping[Any, bool]) -> npt.NDArray[np.bool_]:
    return truths(name, list(answers.values()))
