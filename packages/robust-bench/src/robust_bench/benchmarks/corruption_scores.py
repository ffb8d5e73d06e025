"""Scores over the corruptions of one data set."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robust_bench.answers import Answers
from robust_bench.benchmarks.common_images import in_common
from robust_bench.benchmarks.score_row import score_row
from robust_bench.metrics import (
    ALEXNET_ERRORS,
    bootstrap_means,
    mean_corruption_error,
    mean_corruption_error_without_noise,
    mean_error,
    relative_mean_corruption_error,
)
from robust_bench.part import Found
from robust_bench.result import Row

CORRUPTIONS = tuple(ALEXNET_ERRORS)
"""The 15 corruptions that scores are over, in the published order."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, for choosing hyper-parameters: they are part of no score."""

SEVERITIES = (1, 2, 3, 4, 5)

Cells = Mapping[str, Mapping[int, Answers]]
"""By corruption and severity."""

_CLEAN = "clean"


def corruption_scores(found: Found, *, benchmark: str, clean: str | None = None) -> Iterator[Row]:
    """Give CE for every corruption with all severities; mCE, mCE without noise and relative mCE where all 15 have.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261. Intervals are bootstrapped over images, which all corruptions
    and severities share.

    Args:
        found: the answers.
        benchmark: name of the benchmark; its parts are called that, or begin with it and a slash.
        clean: name of the part of the clean images, which relative mCE needs.
    """
    cells = _cells(found, benchmark)
    for name in cells:
        ratio = partial(mean_corruption_error, baseline={name: ALEXNET_ERRORS[name]})
        yield from _score("corruption_error", ratio, benchmark, {name: cells[name]}, corruption=name)
    if len(cells) < len(CORRUPTIONS):
        return
    yield from _score("mean_corruption_error", mean_corruption_error, benchmark, cells)
    yield from _score("mean_corruption_error_without_noise", mean_corruption_error_without_noise, benchmark, cells)
    if clean is not None and clean in found:
        yield from _score("relative_mean_corruption_error", _relative, benchmark, cells, clean=found[clean][0])


def error_scores(found: Found, *, benchmark: str) -> Iterator[Row]:
    """Give the mean error over the 15 corruptions where all are there: the score of CIFAR-C and Tiny ImageNet-C.

    Papers call it mCE, too; see `robust_bench.metrics.mean_error`.
    """
    cells = _cells(found, benchmark)
    if len(cells) == len(CORRUPTIONS):
        yield from _score("mean_error", mean_error, benchmark, cells)


def _relative(errors: Mapping[str, Any]) -> float:
    corrupted = {name: error for name, error in errors.items() if name != _CLEAN}
    return relative_mean_corruption_error(corrupted, errors[_CLEAN])


def _cells(found: Found, benchmark: str) -> Cells:
    """The answers about those of the 15 corruptions of which all severities are there, in their order."""
    cells: dict[str, dict[int, Answers]] = {name: {} for name in CORRUPTIONS}
    for part, answers in found.items():
        if part == benchmark or part.startswith(f"{benchmark}/"):
            for each in answers:
                if each.settings.get("kind") == "corruption" and each.settings["corruption"] in cells:
                    cells[each.settings["corruption"]][each.settings["severity"]] = each
    return {name: severities for name, severities in cells.items() if set(severities) == set(SEVERITIES)}


def _score(
    metric: str,
    statistic: Callable[[Any], float],
    benchmark: str,
    cells: Cells,
    *,
    clean: Answers | None = None,
    corruption: str | None = None,
) -> Iterator[Row]:
    """A score of errors, with its interval; nothing where fewer than two images are in all cells."""
    wrong = _wrong(cells, clean)
    count = len(next(iter(wrong.values())))
    if count < 2:
        return
    found = bootstrap_means(wrong, statistic)
    yield score_row(
        benchmark=benchmark,
        condition=f"{len(cells)} corruptions" if corruption is None else f"{corruption} 1 to 5",
        settings={} if corruption is None else {"corruption": corruption},
        metric=metric,
        value=found.value,
        count=count,
        interval=found,
    )


def _wrong(cells: Cells, clean: Answers | None) -> dict[str, Tensor]:
    """Whether each image that is in all cells was misclassified: (N, 5) per corruption, (N,) when clean."""
    flat = [cells[name][severity] for name in cells for severity in SEVERITIES]
    flat += [] if clean is None else [clean]
    columns = [torch.from_numpy(~each.right[rows]) for each, rows in zip(flat, in_common(flat), strict=True)]
    width = len(SEVERITIES)
    out = {name: torch.stack(columns[place * width :][:width], dim=1) for place, name in enumerate(cells)}
    return out if clean is None else {**out, _CLEAN: columns[-1]}
