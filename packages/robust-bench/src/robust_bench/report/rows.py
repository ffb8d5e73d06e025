"""Rows as the leaderboard compares them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robust_bench.families import SEVERITIES, families, is_corruption, is_sweep
from robust_bench.flat import flat
from robust_bench.report.data import protocol
from robust_bench.result import Row
from robust_bench.tables import ACCURACY, eps_text

MEAN_ACCURACY = "mean_accuracy"
_ONE_OF_SEVERAL = ("corruption", "perturbation")  # settings of rows about one of those that scores are over
_REFERENCES = ("people", "pairs of people")  # rows in whose "of" these stand are not about the model
_MAIN_KINDS = ("clean", "attack", "score")
_FOUND = ("interval", "details")  # what was found, or how its interval was: no part of the protocol


def comparable(row: Row, known: Mapping[str, Any]) -> Row:
    """The row, with all that its number depends on among its settings, without nesting, so that words are short."""
    settings = {key: value for key, value in row.settings.items() if key not in _FOUND}
    of_data = protocol(known)
    return dataclasses.replace(row, settings=dict(flat(settings)) | dict(flat(of_data, "data.")))


def means(rows: Sequence[Row]) -> Iterator[Row]:
    """For every corruption that was measured at all severities on the same images, the mean of its accuracies."""
    cells = [row for row in rows if row.metric == ACCURACY and is_corruption(row)]
    for family in families([cells], name=lambda row: str(row.settings["corruption"]), size="severity"):
        mine = tuple(family.cells[0].values())
        if len(mine) == len(SEVERITIES) and len({row.count for row in mine}) == 1:
            yield Row(
                benchmark=mine[0].benchmark,
                condition=family.name.replace("_", " "),
                settings={**mine[0].settings, "severity": "mean of 1 to 5"},
                metric=MEAN_ACCURACY,
                value=sum(row.value for row in mine) / len(mine),
                count=mine[0].count,
                seconds=sum(row.seconds for row in mine),
            )


def attack_words(row: Row) -> tuple[str, str]:
    """Name an attack, and its norm and eps; nothing for the second where the settings do not have them.

    Examples:
        >>> settings = {"kind": "attack", "norm": "Linf", "eps": 8 / 255}
        >>> label = "PGD-20, Linf 8/255"
        >>> row = Row.accuracy(benchmark="b", condition=label, settings=settings, correct=1, count=2, seconds=0.0)
        >>> attack_words(row)
        ('PGD-20', 'Linf, eps 8/255')
    """
    if not is_sweep(row):
        return row.condition, ""
    eps, norm = eps_text(row.settings["eps"]), str(row.settings.get("norm", "unknown norm"))
    return row.condition.removesuffix(f", {norm} {eps}"), f"{norm}, eps {eps}"


def whole(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows but for the cells of corruption tables."""
    return (row for row in rows if row.metric != ACCURACY or not is_corruption(row))


def is_detail(row: Row) -> bool:
    """Whether it is about one of several corruptions, an analysis of a condition, people, or a condition of its own."""
    known = row.settings
    return (
        known.get("kind") not in _MAIN_KINDS
        or known.get("of") in _REFERENCES
        or any(key in _ONE_OF_SEVERAL or key.startswith("of.") for key in known)
    )
