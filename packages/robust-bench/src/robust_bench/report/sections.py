"""Results arranged for the page: one section per data set, one table per kind of condition."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robust_bench.families import SEVERITIES, Family, families, is_corruption, is_sweep
from robust_bench.report.data import described, own_folder
from robust_bench.result import Result, Row
from robust_bench.tables import ACCURACY, eps_text, metric_title


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table: its headings, a cell per column (None where nothing was measured), and their mean."""

    model: str
    cells: tuple[Row | None, ...]
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table: a caption, the columns' headings, and groups of lines under a heading of their own.

    Its kind is "attack" or "corruption", whose cells are accuracies, or "metric" for any other number.
    """

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
    models = [result.model for result in results]
    return tuple(Section(title=title, sheets=tuple(_sheets(models, rows))) for title, rows in by_data(results).items())


def by_data(results: Sequence[Result]) -> dict[str, list[list[Row]]]:
    """Give every result's rows by the data they were measured on, whose words say what and how many."""
    found: dict[str, list[list[Row]]] = {}
    for position, result in enumerate(results):
        for row in result.rows:
            lists = found.setdefault(_data(result, row), [[] for _ in results])
            lists[position].append(row)
    return found


def _data(result: Result, row: Row) -> str:
    known = described(result, row.benchmark)
    name = str(known.get("dataset") or row.benchmark)
    return f"{f'{name} {own_folder(known)}'.strip()}, {row.count:,} images"


def _sheets(models: Sequence[str], rows: Sequence[Sequence[Row]]) -> Iterable[Sheet]:
    accuracies = [[row for row in mine if row.metric == ACCURACY] for mine in rows]
    clean = [next((row for row in mine if row.settings.get("kind") == "clean"), None) for mine in accuracies]
    swept = families([[row for row in mine if is_sweep(row)] for mine in accuracies], name=_title, size="eps")
    if any(clean) and not swept:
        lines = [Line(model=model, cells=(cell,)) for model, cell in zip(models, clean, strict=True) if cell]
        yield Sheet(kind="attack", caption="Clean accuracy", columns=("clean",), groups=(("", tuple(lines)),))
    for family in swept:
        yield _attack_sheet(family, models, clean)
    others = [
        [row for row in mine if row is not first and not is_sweep(row) and not is_corruption(row)]
        for first, mine in zip(clean, accuracies, strict=True)
    ]
    if any(others):
        yield _plain_sheet("attack", "Other conditions", models, others)
    corrupted = [[row for row in mine if is_corruption(row)] for mine in accuracies]
    if any(corrupted):
        yield _corruption_sheet(models, corrupted)
    for metric in dict.fromkeys(row.metric for mine in rows for row in mine if row.metric != ACCURACY):
        of_metric = [[row for row in mine if row.metric == metric] for mine in rows]
        unit = next(row.unit for mine in of_metric for row in mine)
        yield _plain_sheet("metric", metric_title(metric, unit), models, of_metric)


def _title(row: Row) -> str:
    known = row.settings
    parts = [f"{known.get('attack', 'attack')} in {known.get('norm', 'an unknown norm')}"]
    for key, word in (("steps", "steps"), ("restarts", "restarts")):
        if isinstance(known.get(key), int):
            parts.append(f"{known[key]} {word if known[key] != 1 else word[:-1]}")
    return f"Accuracy under {', '.join(parts)}"


def _attack_sheet(family: Family, models: Sequence[str], clean: Sequence[Row | None]) -> Sheet:
    every = sorted({eps for cells in family.cells for eps in cells})
    lines = tuple(
        Line(model=model, cells=(first, *(cells.get(eps) for eps in every)))
        for model, first, cells in zip(models, clean, family.cells, strict=True)
        if cells or first
    )
    columns = ("clean", *(f"eps {eps_text(eps)}" for eps in every))
    return Sheet(kind="attack", caption=family.title, columns=columns, groups=(("", lines),))


def _plain_sheet(kind: str, caption: str, models: Sequence[str], rows: Sequence[Sequence[Row]]) -> Sheet:
    found = families(rows, name=lambda row: row.condition)
    lines = (
        Line(model=model, cells=tuple(family.cells[position].get(None) for family in found))
        for position, model in enumerate(models)
    )
    kept = tuple(line for line in lines if any(line.cells))
    return Sheet(kind=kind, caption=caption, columns=tuple(family.title for family in found), groups=(("", kept),))


def _corruption_sheet(models: Sequence[str], rows: Sequence[Sequence[Row]]) -> Sheet:
    groups = []
    for family in families(rows, name=lambda row: row.settings["corruption"].replace("_", " "), size="severity"):
        lines = []
        for model, cells in zip(models, family.cells, strict=True):
            if cells:
                whole = len(cells) == len(SEVERITIES)
                mean = sum(row.value for row in cells.values()) / len(cells) if whole else None
                lines.append(Line(model=model, cells=tuple(cells.get(s) for s in SEVERITIES), mean=mean))
        groups.append((family.title, tuple(lines)))
    presets = sorted({str(row.settings.get("preset")) for mine in rows for row in mine})
    return Sheet(
        kind="corruption",
        caption=f"Accuracy under corruption, by severity ({', '.join(presets)} constants)",
        columns=tuple(map(str, SEVERITIES)),
        groups=tuple(groups),
    )
