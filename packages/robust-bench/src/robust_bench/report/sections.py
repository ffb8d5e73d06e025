"""Results arranged for the page: one section per data set, one table per kind of condition."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from robust_bench.result import Result, Row
from robust_bench.tables import SEVERITIES, is_corruption


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table: its headings, a cell per column (None where nothing was measured), and their mean."""

    model: str
    cells: tuple[Row | None, ...]
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table: a caption, the columns' headings, and groups of lines under a heading of their own."""

    kind: str
    caption: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything that was measured on one data set."""

    title: str
    sheets: tuple[Sheet, ...]


def sections(results: Sequence[Result]) -> tuple[Section, ...]:
    """Arrange results; numbers of different data sets never share a table."""
    found: dict[str, list[list[Row]]] = {}
    for position, result in enumerate(results):
        for row in result.rows:
            lists = found.setdefault(_data(result, row), [[] for _ in results])
            lists[position].append(row)
    models = [result.model for result in results]
    return tuple(Section(title=title, sheets=tuple(_sheets(models, rows))) for title, rows in found.items())


def _data(result: Result, row: Row) -> str:
    about = result.settings.get("data", {})
    known: Any = about.get(row.benchmark, {}) if isinstance(about, dict) else {}
    name = str(known.get("dataset") or row.benchmark) if isinstance(known, dict) else row.benchmark
    if isinstance(known, dict) and "path" in known:
        name += f" {known['path']}"
    return f"{name}, {row.count:,} images"


def _sheets(models: Sequence[str], rows: Sequence[Sequence[Row]]) -> Iterable[Sheet]:
    clean = [next((row for row in mine if row.settings.get("kind") == "clean"), None) for mine in rows]
    attacks: dict[str, str] = {}
    others: dict[str, str] = {}
    for row in (row for mine in rows for row in mine):
        if _is_sweep(row):
            attacks.setdefault(_sweep(row), _title(row))
        elif not is_corruption(row) and row.settings.get("kind") != "clean":
            others.setdefault(row.condition, row.condition)
    if any(clean) and not attacks:
        lines = [Line(model=model, cells=(cell,)) for model, cell in zip(models, clean, strict=True) if cell]
        yield Sheet(kind="attack", caption="Clean accuracy", columns=("clean",), groups=(("", tuple(lines)),))
    for key, title in attacks.items():
        yield _attack_sheet(title, key, models, rows, clean)
    if others:
        lines = [
            Line(model=model, cells=tuple(next((r for r in mine if r.condition == name), None) for name in others))
            for model, mine in zip(models, rows, strict=True)
        ]
        kept = tuple(line for line in lines if any(line.cells))
        yield Sheet(kind="attack", caption="Other conditions", columns=tuple(others), groups=(("", kept),))
    if any(is_corruption(row) for mine in rows for row in mine):
        yield _corruption_sheet(models, rows)


def _is_sweep(row: Row) -> bool:
    return row.settings.get("kind") == "attack" and isinstance(row.settings.get("eps"), int | float)


def _sweep(row: Row) -> str:
    """Identify all settings but eps: rows that share them belong to one table."""
    return json.dumps({key: value for key, value in row.settings.items() if key != "eps"}, sort_keys=True)


def _title(row: Row) -> str:
    known = row.settings
    parts = [f"{known.get('attack', 'attack')} in {known.get('norm', 'an unknown norm')}"]
    for key, word in (("steps", "steps"), ("restarts", "restarts")):
        if isinstance(known.get(key), int):
            parts.append(f"{known[key]} {word if known[key] != 1 else word[:-1]}")
    return f"Accuracy under {', '.join(parts)}"


def _attack_sheet(
    title: str, key: str, models: Sequence[str], rows: Sequence[Sequence[Row]], clean: Sequence[Row | None]
) -> Sheet:
    mine = [{float(row.settings["eps"]): row for row in some if _is_sweep(row) and _sweep(row) == key} for some in rows]
    every = sorted({eps for cells in mine for eps in cells})
    lines = tuple(
        Line(model=model, cells=(first, *(cells.get(eps) for eps in every)))
        for model, first, cells in zip(models, clean, mine, strict=True)
        if cells or first
    )
    names = tuple(f"eps {row.condition.rpartition(' ')[2]}" for row in _one_of_each(mine, every))
    return Sheet(kind="attack", caption=title, columns=("clean", *names), groups=(("", lines),))


def _one_of_each(mine: Sequence[dict[float, Row]], every: Sequence[float]) -> Iterable[Row]:
    for eps in every:
        yield next(cells[eps] for cells in mine if eps in cells)


def _corruption_sheet(models: Sequence[str], rows: Sequence[Sequence[Row]]) -> Sheet:
    names = dict.fromkeys(str(row.settings["corruption"]) for some in rows for row in some if is_corruption(row))
    groups = []
    for name in names:
        lines = []
        for model, some in zip(models, rows, strict=True):
            cells = {
                row.settings["severity"]: row
                for row in some
                if is_corruption(row) and row.settings["corruption"] == name
            }
            if cells:
                whole = len(cells) == len(SEVERITIES)
                mean = sum(row.value for row in cells.values()) / len(cells) if whole else None
                lines.append(Line(model=model, cells=tuple(cells.get(s) for s in SEVERITIES), mean=mean))
        groups.append((name.replace("_", " "), tuple(lines)))
    presets = sorted({str(row.settings.get("preset")) for some in rows for row in some if is_corruption(row)})
    return Sheet(
        kind="corruption",
        caption=f"Accuracy under corruption, by severity ({', '.join(presets)} constants)",
        columns=tuple(map(str, SEVERITIES)),
        groups=tuple(groups),
    )
