"""Scores of the model-vs-human sets, from what a model said and, where they are at hand, what people said.

OOD accuracy, accuracy difference, observed and error consistency: Geirhos et al., "Partial success in closing the gap
between human and machine vision", NeurIPS 2021, arXiv:2106.07411, and Geirhos, Meding & Wichmann, NeurIPS 2020,
arXiv:2006.16736. Conditions without distortion, or that people cannot see through, are left out of all of them, and
trials are matched by picture. A row says in "of" whose it is: "model", "people", "model and people" (the mean over
people of how the model agrees with each) or "pairs of people", which is what the model is to be compared with.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from robust_bench import metrics
from robust_bench.benchmarks.human_agreement import Pairs, among_people, error_consistency_interval, with_people
from robust_bench.benchmarks.human_answers import LEFT_OUT, SetAnswers, set_answers
from robust_bench.benchmarks.score_row import score_row
from robust_bench.benchmarks.shape_scores import shape_rows
from robust_bench.datasets.human_responses import Response
from robust_bench.datasets.stimulus import IMAGES
from robust_bench.metrics.consistency import Measure
from robust_bench.part import Found
from robust_bench.result import FRACTION, Row

CUE_CONFLICT = "cue-conflict"
FAMILY = "model-vs-human"
AGGREGATIONS = ("mean", "max")

_MEASURES = (metrics.accuracy_difference, metrics.observed_consistency, metrics.error_consistency)
_NUMBERS = ("accuracy_difference", "error_consistency")  # which nobody gives in per cent


def part_name(dataset: str, aggregation: str) -> str:
    """Name the part of a set, which is also the benchmark of its rows: another for every aggregation.

    Examples:
        >>> part_name("sketch", "mean"), part_name("cue-conflict", "max")
        ('model-vs-human-sketch', 'cue-conflict-max')
    """
    return _aggregated(dataset if dataset == CUE_CONFLICT else f"{FAMILY}-{dataset}", aggregation)


def human_scores(
    found: Found, *, sets: Sequence[str], humans: Mapping[str, Sequence[Response]] = MappingProxyType({})
) -> tuple[Row, ...]:
    """Score the sets that have been evaluated, and all 17 together where they are asked for and there.

    Args:
        found: what the model said.
        sets: names of the sets to score.
        humans: of every set what people answered; one that is missing here gets the scores that need no people.

    Raises:
        ValueError: if people have not seen the pictures that the model has; the message names the ids.
    """
    rows: list[Row] = []
    for aggregation in AGGREGATIONS:
        there: list[SetAnswers] = []
        for dataset in sets:
            answers = found.get(part_name(dataset, aggregation), ())
            clean = [each for each in answers if each.settings.get("kind") == "clean"]
            if clean and len(clean[0]):
                there.append(set_answers(dataset, aggregation, clean[0], humans.get(dataset, ())))
        for each in there:
            rows += _conditions(each)
            if each.dataset == CUE_CONFLICT:
                rows += shape_rows(each)
            rows += _means([each], each.benchmark, each.dataset)
        if len(there) == len(IMAGES):
            rows += _means(there, _aggregated(FAMILY, aggregation), f"{len(there)} sets")
    return tuple(rows)


def _aggregated(name: str, aggregation: str) -> str:
    return name if aggregation == AGGREGATIONS[0] else f"{name}-{aggregation}"


def _conditions(seen: SetAnswers) -> Iterator[Row]:
    """The accuracy under every condition of a set that has several."""
    if len(seen.model) < 2:
        return
    for condition in sorted(seen.model, key=_by_number):
        right = list(seen.model[condition].values())
        yield Row.accuracy(
            benchmark=seen.benchmark,
            condition=f"{seen.dataset} {condition}",
            settings={
                "kind": "condition",
                "set": seen.dataset,
                "condition": condition,
                "left_out": condition in LEFT_OUT[seen.dataset],
                "aggregation": seen.aggregation,
            },
            correct=sum(right),
            count=len(right),
            seconds=0.0,
        )


def _by_number(condition: str) -> tuple[list[float], str]:
    """Sort conditions by the numbers in them, those without at the end."""
    numbers = [float(number) for number in re.findall(r"inf|\d+(?:\.\d+)?", condition)]
    return numbers or [math.inf], condition


def _means(seen: Sequence[SetAnswers], benchmark: str, where: str) -> Iterator[Row]:
    """The scores that are means over sets, of one set or of all."""
    right = [torch.tensor([r for name in each.kept for r in each.model[name].values()]) for each in seen]
    count = sum(map(len, right))
    settings = {"set": where, "aggregation": seen[0].aggregation}
    yield score_row(
        benchmark=benchmark,
        condition=where,
        settings={**settings, "of": "model"},
        metric="ood_accuracy",
        value=metrics.ood_accuracy({each.dataset: each.model for each in seen}, LEFT_OUT),
        count=count,
        interval=_mean_interval(right),
    )
    if all(each.people for each in seen):
        for who, metric, value, interval in _beside_people(seen):
            yield score_row(
                benchmark=benchmark,
                condition=f"{where}, {who}",
                settings={**settings, "of": who, "people": {each.dataset: len(each.people) for each in seen}},
                metric=metric,
                unit="number" if metric in _NUMBERS else FRACTION,
                value=value,
                count=count,
                interval=interval,
            )


def _beside_people(seen: Sequence[SetAnswers]) -> Iterator[tuple[str, str, float, metrics.BootstrapInterval | None]]:
    """Whose score it is, its metric, its value and its interval."""
    model = {each.dataset: each.model for each in seen}
    people = {each.dataset: each.people for each in seen}
    shares = [
        [metrics.ood_accuracy({dataset: mine}, LEFT_OUT) for mine in theirs.values()]
        for dataset, theirs in people.items()
    ]
    yield "people", "ood_accuracy", float(np.mean([np.mean(each) for each in shares])), None
    for measure in _MEASURES:
        value = metrics.mean_over_humans(model, people, measure, LEFT_OUT)
        yield "model and people", measure.__name__, value, _agreement_interval(seen, measure, with_people)
    if all(len(each.people) > 1 for each in seen):
        for measure in _MEASURES:
            value = metrics.mean_over_human_pairs(people, measure, LEFT_OUT)
            yield "pairs of people", measure.__name__, value, _agreement_interval(seen, measure, among_people)


def _agreement_interval(
    seen: Sequence[SetAnswers], measure: Measure, pairs: Callable[[SetAnswers], list[Pairs]]
) -> metrics.BootstrapInterval | None:
    """The bootstrap interval of error consistency; none of the others."""
    if measure is not metrics.error_consistency:
        return None
    return error_consistency_interval([pairs(each) for each in seen])


def _mean_interval(right: Sequence[Tensor]) -> metrics.BootstrapInterval | None:
    """The bootstrap interval of the mean over sets of their accuracies; None for a single picture."""
    sizes = torch.tensor([len(each) for each in right])
    if sizes.sum() < 2:
        return None
    shares = torch.cat([each.double() / (len(each) * len(right)) for each in right])  # what each picture adds
    sets = torch.repeat_interleave(torch.arange(len(right)), sizes)
    return metrics.bootstrap((shares,), lambda drawn: float(drawn.sum()), strata=sets)
