"""The leaderboard: one line per model, columns for everything that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robust_bench.report.checkpoints import Choice, about_model, choices, spec
from robust_bench.report.columns import Column, Group, groups
from robust_bench.report.data import described, resized
from robust_bench.report.slugs import slugs
from robust_bench.result import Result


@dataclass(frozen=True, kw_only=True)
class Line:
    """One model.

    Args:
        position: among the results, and so in the cells of every column.
        model: its name.
        slug: the name of its page, without suffix.
        architecture: what was built; empty where that is not known.
        parameters: how many; None where that is not known.
        multiply_adds: of one image; None where that is not known.
        checkpoints: how many checkpoints of this architecture were evaluated on the same set, at most; 0 if no others.
        resized: for every benchmark whose files were resized for this model, how.
    """

    position: int
    model: str
    slug: str
    architecture: str
    parameters: int | None
    multiply_adds: int | None
    checkpoints: int
    resized: Mapping[str, str]

    @property
    def named(self) -> bool:
        """Tell whether the architecture says something that the name does not."""
        return bool(self.architecture) and self.architecture != self.model


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Everything that the page of all models shows.

    Args:
        groups: the columns.
        lines: sorted by the first column, the best first, models without a number last.
        choices: checkpoints among which somebody may choose.
    """

    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    choices: tuple[Choice, ...]

    @property
    def shown(self) -> int:
        """Count the columns that are shown from the start."""
        return sum(len(group.columns) for group in self.groups if group.shown)

    @property
    def first(self) -> Column | None:
        """Give the column by which the lines are sorted; None where nothing was measured."""
        return _first(self.groups)


def leaderboard(results: Sequence[Result]) -> Leaderboard:
    """Arrange results of models with different names."""
    found = groups(results)
    chosen = choices(results, found)
    lines = [
        Line(
            position=position,
            model=result.model,
            slug=slug,
            architecture=spec(result),
            parameters=_count(about_model(result).get("parameters")),
            multiply_adds=_count(about_model(result).get("multiply_adds")),
            checkpoints=max((choice.count for choice in chosen if position in choice.models), default=0),
            resized=_resized(result),
        )
        for position, (result, slug) in enumerate(zip(results, slugs([each.model for each in results]), strict=True))
    ]
    return Leaderboard(groups=found, lines=tuple(_sorted(lines, _first(found))), choices=chosen)


def _first(found: Sequence[Group]) -> Column | None:
    return next((group.columns[0] for group in found if group.shown), None)


def _sorted(lines: Sequence[Line], column: Column | None) -> list[Line]:
    def rank(line: Line) -> tuple[bool, float]:
        row = None if column is None else column.cells[line.position]
        if column is None or row is None:
            return True, 0.0
        return False, row.value if column.lower else -row.value

    return sorted(lines, key=rank)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _resized(result: Result) -> dict[str, str]:
    benchmarks = dict.fromkeys(row.benchmark for row in result.rows)
    return {name: how for name in benchmarks if (how := resized(described(result, name)))}
