"""Shape or texture: the scores of cue-conflict.

Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness", ICLR 2019, arXiv:1811.12231. Shape bias = n_shape / (n_shape + n_texture), counted over the 1,200 of 1,280
pictures whose shape and texture are of different classes: n_shape are decisions for the class of the shape, n_texture
those for the class of the texture, and all others count for neither. Beside it stands `cue_share`, the share of the
1,200 that were decided for either: a shape bias that rests on a tenth of the pictures says little.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from robust_bench.benchmarks.human_answers import SetAnswers
from robust_bench.benchmarks.score_row import score_row
from robust_bench.datasets.human_responses import Response
from robust_bench.datasets.stimulus import cues
from robust_bench.metrics import BootstrapInterval, bootstrap_means, cue_share, human_shape_bias, shape_bias
from robust_bench.result import Row

_AVERAGES: tuple[Literal["trials", "observers"], ...] = ("trials", "observers")


def shape_rows(seen: SetAnswers) -> Iterator[Row]:
    """Score the decisions of a model, and of people where they are at hand, on cue-conflict.

    Only what is defined: nothing without conflicts, and no shape bias where no decision is for shape or texture.
    """
    textures = [cues(picture)[1] for picture in seen.pictures]
    taken = _taken(seen.decisions, seen.labels, textures)
    count = len(taken["shape"])
    settings = {"set": seen.dataset, "of": "model", "aggregation": seen.aggregation}
    if _decided(taken):
        yield score_row(
            benchmark=seen.benchmark,
            condition=seen.dataset,
            settings=settings,
            metric="shape_bias",
            value=shape_bias(seen.decisions, seen.labels, textures),
            count=count,
            interval=_interval(taken, _bias),
        )
    if count:
        yield score_row(
            benchmark=seen.benchmark,
            condition=seen.dataset,
            settings=settings,
            metric="cue_share",
            value=cue_share(seen.decisions, seen.labels, textures),
            count=count,
            interval=_interval(taken, lambda means: means["shape"] + means["texture"]),
        )
    yield from _people(seen.benchmark, seen.dataset, seen.responses)


def _people(benchmark: str, dataset: str, responses: Sequence[Response]) -> Iterator[Row]:
    """The shape bias of people, both as pooled decisions and as the mean of their shape biases."""
    columns: dict[str, list[Response]] = {}
    for each in responses:
        columns.setdefault(each.observer, []).append(each)
    if not columns or not all(_decided(_taken(*_columns(mine))) for mine in columns.values()):
        return
    observers = [each.observer for each in responses]
    for average in _AVERAGES:
        yield score_row(
            benchmark=benchmark,
            condition=f"{dataset}, people, mean over {average}",
            settings={"set": dataset, "of": "people", "people": {dataset: len(columns)}, "average": average},
            metric="human_shape_bias",
            value=human_shape_bias(*_columns(responses), observers, average),
            count=len({each.stimulus for each in responses if cues(each.stimulus)[1] != each.category}),
        )


def _columns(responses: Sequence[Response]) -> tuple[list[str | None], list[str], list[str]]:
    """Decisions, shapes and textures."""
    return (
        [each.answer for each in responses],
        [each.category for each in responses],
        [cues(each.stimulus)[1] for each in responses],
    )


def _taken(decisions: Sequence[str | None], shapes: Sequence[str], textures: Sequence[str]) -> dict[str, Tensor]:
    """For every conflict, whether the decision is for the shape, and whether for the texture."""
    conflicts = [each for each in zip(decisions, shapes, textures, strict=True) if each[1] != each[2]]
    return {
        "shape": torch.tensor([decision == shape for decision, shape, _ in conflicts]),
        "texture": torch.tensor([decision == texture for decision, _, texture in conflicts]),
    }


def _decided(taken: Mapping[str, Tensor]) -> bool:
    return any(bool(column.any()) for column in taken.values())


def _bias(means: Mapping[str, float]) -> float:
    either = means["shape"] + means["texture"]
    return means["shape"] / either if either else math.nan


def _interval(
    taken: Mapping[str, Tensor], statistic: Callable[[Mapping[str, float]], float]
) -> BootstrapInterval | None:
    """The bootstrap interval over the pictures in conflict; None where so few decide that a resample has none."""
    try:
        return bootstrap_means(taken, statistic)
    except ValueError:
        return None
