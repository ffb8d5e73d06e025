"""Rows of scores over several images, with their bootstrap intervals."""

from collections.abc import Mapping
from typing import Any

from robust_bench.metrics import BootstrapInterval
from robust_bench.result import FRACTION, Row


def score_row(
    *,
    benchmark: str,
    condition: str,
    settings: Mapping[str, Any],
    metric: str,
    value: float,
    count: int,
    unit: str = FRACTION,
    interval: BootstrapInterval | None = None,
) -> Row:
    """Make the row of a score.

    Args:
        benchmark: of the row.
        condition: what the score is of, for readers.
        settings: the same for programs; "kind" and "interval" are added.
        metric: name of a function of `robust_bench.metrics`.
        value: of the score.
        count: images that it rests on.
        unit: of the value.
        interval: of the bootstrap; None where there is none.
    """
    known = {"kind": "score", **settings}
    if interval is not None:
        known["interval"] = {"method": "bootstrap", "resamples": interval.resamples, "seed": interval.seed}
    return Row(
        benchmark=benchmark,
        condition=condition,
        settings=known,
        metric=metric,
        unit=unit,
        value=value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        count=count,
    )
