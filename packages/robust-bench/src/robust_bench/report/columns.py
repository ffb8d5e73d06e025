"""The columns of the leaderboard: numbers of different protocols never share one."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robust_bench.families import Family, families, is_sweep
from robust_bench.report.data import described, own_folder
from robust_bench.report.direction import lower_is_better
from robust_bench.report.rows import MEAN_ACCURACY, attack_words, comparable, is_detail, means, whole
from robust_bench.result import FRACTION, Result, Row
from robust_bench.tables import ACCURACY, metric_name


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number per model, all of the same protocol.

    Args:
        title: what is measured, or under what.
        about: more about it in small print: norm and eps, what tells it from other columns of that title.
        row: one of its rows; condition, settings, metric, unit and number of images are those of all others. Its
            settings are without nesting, with those of the data as "data. ...".
        cells: for every model its row, None where it was not measured.
    """

    title: str
    about: tuple[str, ...]
    row: Row
    cells: tuple[Row | None, ...]

    @property
    def lower(self) -> bool:
        """Tell whether a lower number is the better one."""
        return lower_is_better(self.row.metric)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The columns of one data set, or those of its details.

    Args:
        title: the benchmark.
        about: whether these are details, and the number of images where all have the same.
        benchmark: the `benchmark` of the rows.
        columns: in the order in which they are shown.
        detail: whether they are about single corruptions and the like.
        shown: whether they are shown from the start.
    """

    title: str
    about: str
    benchmark: str
    columns: tuple[Column, ...]
    detail: bool
    shown: bool


def groups(results: Sequence[Result]) -> tuple[Group, ...]:
    """Find the columns of results, in the order in which the data appear."""
    found: dict[tuple[str, str], list[list[Row]]] = {}
    for position, result in enumerate(results):
        by_benchmark: dict[str, list[Row]] = {}
        for row in result.rows:
            by_benchmark.setdefault(row.benchmark, []).append(row)
        for benchmark, rows in by_benchmark.items():
            known = described(result, benchmark)
            mine = found.setdefault((benchmark, own_folder(known)), [[] for _ in results])
            mine[position] += [comparable(row, known) for row in (*whole(rows), *means(rows))]
    return tuple(group for (benchmark, folder), rows in found.items() for group in _split(benchmark, folder, rows))


def _split(benchmark: str, folder: str, rows: Sequence[Sequence[Row]]) -> Iterator[Group]:
    """The main columns of a data set, and those of single corruptions and the like."""
    found = families(rows, name=lambda row: json.dumps([row.metric, row.unit, row.condition, row.count]))
    main = [family for family in found if not is_detail(_any(family))]
    details = [family for family in found if is_detail(_any(family))]
    for part, detail in ((main, False), (details, True)):
        if part:
            counts = {_any(family).count for family in part}
            images = f"{min(counts):,} images" if len(counts) == 1 else ""
            yield Group(
                title=f"{benchmark} {folder}".strip(),
                about=", ".join(filter(None, ("in detail" if detail else "", images))),
                benchmark=benchmark,
                columns=_ordered([_column(family, count=len(counts) > 1) for family in part]),
                detail=detail,
                shown=not detail or not main,
            )


def _column(family: Family, *, count: bool) -> Column:
    row = _any(family)
    if row.metric == ACCURACY:
        title, small = attack_words(row)
    elif row.metric == MEAN_ACCURACY:
        title, small = row.condition, "mean over severities"
    else:
        title = metric_name(row.metric)
        small = row.condition if row.condition.casefold() != title.casefold() else ""
    images = f"{row.count:,} images" if count else ""
    about = tuple(filter(None, (small, family.differs, "" if row.unit == FRACTION else row.unit, images)))
    return Column(title=title, about=about, row=row, cells=tuple(cells.get(None) for cells in family.cells))


def _any(family: Family) -> Row:
    return next(row for cells in family.cells for row in cells.values())


def _ordered(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Clean accuracy, then attacks by eps, then all others as they come."""
    attacks: dict[tuple[str, object], int] = {}

    def rank(column: Column) -> tuple[int, int, float]:
        row = column.row
        if row.metric == ACCURACY and row.settings.get("kind") == "clean":
            return 0, 0, 0.0
        if row.metric == ACCURACY and is_sweep(row):
            attack = (attack_words(row)[0], row.settings.get("norm"))
            return 1, attacks.setdefault(attack, len(attacks)), float(row.settings["eps"])
        return 2, 0, 0.0

    return tuple(sorted(columns, key=rank))
