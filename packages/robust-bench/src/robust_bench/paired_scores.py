"""The difference of two models' scores over many images or conditions, by the paired bootstrap."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robust_bench.benchmarks import cifar_p, imagenet_p
from robust_bench.benchmarks.analysis_scores import DETAILS
from robust_bench.benchmarks.common_images import in_common
from robust_bench.benchmarks.corruption_scores import CORRUPTIONS, SEVERITIES
from robust_bench.benchmarks.flip_scores import mean_flip_probability
from robust_bench.comparison import ScoreDifference
from robust_bench.conditions.flips import FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE
from robust_bench.metrics import (
    ALEXNET_ERRORS,
    aurra,
    mean_absolute_calibration_error,
    mean_corruption_error,
    mean_corruption_error_without_noise,
    mean_error,
    mean_flip_rate,
    relative_mean_corruption_error,
    rms_calibration_error,
)
from robust_bench.paired import Pair, Paired, paired_arrays, paired_means
from robust_bench.part import TOP5
from robust_bench.result import Result, Row
from robust_bench.tables import ACCURACY, metric_name

_CLEAN = "clean"
_OF_ERRORS: Mapping[str, Callable[[Any], float]] = {
    "mean_corruption_error": mean_corruption_error,
    "mean_corruption_error_without_noise": mean_corruption_error_without_noise,
    "relative_mean_corruption_error": lambda means: relative_mean_corruption_error(
        {name: error for name, error in means.items() if name != _CLEAN}, means[_CLEAN]
    ),
    "mean_error": mean_error,
}
_OF_FLIPS: Mapping[str, Callable[[Any], float]] = {
    "mean_flip_rate": mean_flip_rate,
    "mean_flip_probability": mean_flip_probability,
}
_OF_CONFIDENCE: Mapping[str, Callable[..., float]] = {
    "rms_calibration_error": rms_calibration_error,
    "mean_absolute_calibration_error": mean_absolute_calibration_error,
    "aurra": aurra,
}
_OF_COLUMN = {
    "top5_accuracy": TOP5,
    "flip_probability": FLIPS,
    "top5_distance": TOP5_DISTANCE,
    "zipf_distance": ZIPF_DISTANCE,
}


def score_differences(
    a: Result, b: Result, pairs: Sequence[Pair], *, resamples: int = 1000
) -> tuple[list[ScoreDifference], list[str]]:
    """Compare the scores that two results share, and say which could not be compared, and why.

    A score is computed anew from the records of both models, for the images and for resamples of them. Where it
    does not come out as in the results, it was made of something else, and is left out.

    Args:
        a: of the first model.
        b: of the second.
        pairs: what both said of the same images.
        resamples: how many to draw.
    """
    found, left_out = [], []
    theirs = {_key(row): row for row in b.rows if row.metric != ACCURACY}
    for row in a.rows:
        if row.metric == ACCURACY:
            continue
        other = theirs.pop(_key(row), None)
        if other is None:
            left_out.append(f"{_title(row)}: only in a")
        elif (paired := _paired(row, pairs, resamples)) is None or not _is_same(paired, row, other):
            left_out.append(f"{_title(row)}: it has no paired bootstrap, or was not made of these records")
        else:
            found.append(_difference(row, paired))
    left_out += [f"{_title(row)}: only in b" for row in theirs.values()]
    return found, left_out


def _difference(row: Row, paired: Paired) -> ScoreDifference:
    return ScoreDifference(
        benchmark=row.benchmark,
        condition=row.condition,
        settings={name: value for name, value in row.settings.items() if name not in ("interval", DETAILS)},
        metric=row.metric,
        unit=row.unit,
        count=paired.count,
        a=paired.a,
        b=paired.b,
        difference=paired.interval.value,
        low=paired.interval.low,
        high=paired.interval.high,
        resamples=paired.interval.resamples,
        seed=paired.interval.seed,
    )


def _is_same(paired: Paired, row: Row, other: Row) -> bool:
    pairs = ((paired.a, row.value), (paired.b, other.value))
    return all(math.isclose(value, known, rel_tol=1e-6, abs_tol=1e-6) for value, known in pairs)


def _paired(row: Row, pairs: Sequence[Pair], resamples: int) -> Paired | None:
    """A score of both models; None where it cannot be computed from their records."""
    mine = [pair for pair in pairs if pair.a.benchmark == row.benchmark]
    if row.metric == "corruption_error" and row.settings.get("corruption") in CORRUPTIONS:
        name = row.settings["corruption"]
        alone = partial(mean_corruption_error, baseline={name: ALEXNET_ERRORS[name]})
        return _of_errors(alone, mine, (name,), resamples)
    if row.metric in _OF_ERRORS:
        validation = [pair for pair in pairs if pair.part == "imagenet-val" and pair.a.settings.get("kind") == "clean"]
        clean = validation if row.metric.startswith("relative") else None
        return _of_errors(_OF_ERRORS[row.metric], mine, CORRUPTIONS, resamples, clean=clean)
    if row.metric in _OF_FLIPS:
        counted = (cifar_p if row.benchmark.startswith("cifar") else imagenet_p).PERTURBATIONS
        return _of_flips(_OF_FLIPS[row.metric], mine, counted, row.settings.get("difficulty"), resamples)
    asked = {name: row.settings[name] for name in ("perturbation", "difficulty") if name in row.settings}
    for pair in mine:
        if asked.items() <= pair.a.settings.items() and (asked or pair.a.condition == row.condition):
            return _of_one(row, pair, resamples)
    return None


def _of_errors(
    statistic: Callable[[Any], float],
    pairs: Sequence[Pair],
    names: Sequence[str],
    resamples: int,
    *,
    clean: Sequence[Pair] | None = None,
) -> Paired | None:
    """A score of the errors on corruptions at all severities, over the images that all of them have."""
    cells = {
        (pair.a.settings["corruption"], pair.a.settings["severity"]): pair
        for pair in pairs
        if pair.a.settings.get("kind") == "corruption"
    }
    wanted = [(name, severity) for name in names for severity in SEVERITIES]
    if any(cell not in cells for cell in wanted) or clean == []:
        return None
    flat = [cells[cell] for cell in wanted] + list(clean or ())[:1]
    rows = in_common([pair.a for pair in flat])
    wrong = [
        tuple(torch.from_numpy(~each.right[some]) for each in pair.both) for pair, some in zip(flat, rows, strict=True)
    ]
    width = len(SEVERITIES)
    columns: dict[str, tuple[Tensor, Tensor]] = {}
    for place, name in enumerate(names):
        ours, theirs = zip(*wrong[place * width :][:width], strict=True)
        columns[name] = torch.stack(ours, dim=1), torch.stack(theirs, dim=1)
    if clean:
        columns[_CLEAN] = wrong[-1][0], wrong[-1][1]
    return paired_means(columns, statistic, resamples=resamples) if len(rows[0]) > 1 else None


def _of_flips(
    statistic: Callable[[Any], float], pairs: Sequence[Pair], names: Sequence[str], difficulty: object, resamples: int
) -> Paired | None:
    """A score of the flips under several perturbations, over the sequences that all of them have."""
    by_name = {
        pair.a.settings.get("perturbation"): pair for pair in pairs if pair.a.settings.get("difficulty") == difficulty
    }
    if any(name not in by_name for name in names):
        return None
    chosen = [by_name[name] for name in names]
    rows = in_common([pair.a for pair in chosen])
    columns = {
        name: (torch.as_tensor(pair.a.more[FLIPS][some]), torch.as_tensor(pair.b.more[FLIPS][some]))
        for name, pair, some in zip(names, chosen, rows, strict=True)
    }
    return paired_means(columns, statistic, resamples=resamples) if len(rows[0]) > 1 else None


def _of_one(row: Row, pair: Pair, resamples: int) -> Paired | None:
    """A score of the answers under one condition."""
    if len(pair.a) < 2:
        return None
    if row.metric in _OF_CONFIDENCE:
        ours, theirs = ([torch.from_numpy(each.confidences), torch.from_numpy(each.right)] for each in pair.both)
        return paired_arrays(ours, theirs, _OF_CONFIDENCE[row.metric], resamples=resamples)
    column = _OF_COLUMN.get(row.metric)
    if column is None or any(column not in each.more for each in pair.both):
        return None
    values = torch.as_tensor(pair.a.more[column]), torch.as_tensor(pair.b.more[column])
    return paired_means({column: values}, lambda means: float(means[column]), resamples=resamples)


def _title(row: Row) -> str:
    return f"{row.benchmark}, {row.condition}, {metric_name(row.metric)}"


def _key(row: Row) -> str:
    """What two rows of the same score have in common."""
    settings = {name: value for name, value in row.settings.items() if name not in ("interval", DETAILS)}
    return json.dumps([row.benchmark, row.condition, row.metric, row.unit, settings], sort_keys=True)
