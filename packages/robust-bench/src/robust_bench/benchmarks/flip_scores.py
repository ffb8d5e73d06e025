"""Scores over the perturbation sequences of one data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from robust_bench.answers import Answers
from robust_bench.benchmarks.common_images import in_common
from robust_bench.benchmarks.score_row import score_row
from robust_bench.conditions.flips import FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE
from robust_bench.metrics import bootstrap_means
from robust_bench.part import Found
from robust_bench.result import FRACTION, Row

_METRICS = {
    FLIPS: ("flip_probability", FRACTION),
    TOP5_DISTANCE: ("top5_distance", "distance"),
    ZIPF_DISTANCE: ("zipf_distance", "distance"),
}


def mean_flip_probability(flip_probabilities: Mapping[str, float]) -> float:
    """Average flip probabilities where there is no baseline that they could be divided by, as for CIFAR-P.

    Examples:
        >>> mean_flip_probability({"tilt": 0.25, "scale": 0.75})
        0.5
    """
    return fmean(flip_probabilities.values())


def flip_scores(
    found: Found,
    *,
    benchmark: str,
    perturbations: Sequence[str],
    mean: Callable[[Mapping[str, float]], float],
) -> Iterator[Row]:
    """Give every perturbation's flip probability, top-5 and Zipf distance, and a mean of flips where all are there.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261. Intervals are bootstrapped over sequences, which all
    perturbations share.

    Args:
        found: the answers.
        benchmark: name of the benchmark; its parts begin with it and a slash.
        perturbations: which the mean is over; others are reported alone.
        mean: a named function, from flip probabilities by perturbation to the mean.
    """
    answers = {
        each.settings["perturbation"]: each
        for part, seen in found.items()
        if part.startswith(f"{benchmark}/")
        for each in seen
        if each.settings.get("kind") == "sequence"
    }
    for perturbation, each in answers.items():
        for column, (metric, unit) in _METRICS.items():
            yield from _score(metric, unit, mean_flip_probability, column, {perturbation: each})
    if all(perturbation in answers for perturbation in perturbations):
        counted = {perturbation: answers[perturbation] for perturbation in perturbations}
        yield from _score(mean.__name__, FRACTION, mean, FLIPS, counted)


def _score(
    metric: str, unit: str, statistic: Callable[[Any], float], column: str, answers: Mapping[str, Answers]
) -> Iterator[Row]:
    """A score of a column, with its interval; nothing where fewer than two sequences are in all perturbations."""
    values = _values(answers, column)
    count = len(next(iter(values.values())))
    if count < 2:
        return
    found = bootstrap_means(values, statistic)
    (first, *others), one = answers, next(iter(answers.values()))
    name = f"{len(answers)} perturbations" if others else first
    difficulty = one.settings["difficulty"]
    yield score_row(
        benchmark=one.benchmark,
        condition=name if difficulty == 1 else f"{name}, difficulty {difficulty}",
        settings={"difficulty": difficulty} | _made(one) | ({} if others else {"perturbation": first}),
        metric=metric,
        value=found.value,
        count=count,
        unit=unit,
        interval=found,
    )


def _made(answers: Answers) -> dict[str, Any]:
    """How the frames were made, where they come out of no files."""
    return {name: answers.settings[name] for name in ("source", "preset", "seed") if name in answers.settings}


def _values(answers: Mapping[str, Answers], column: str) -> dict[str, Tensor]:
    rows = in_common(list(answers.values()))
    return {
        name: torch.as_tensor(each.more[column][some]) for (name, each), some in zip(answers.items(), rows, strict=True)
    }
