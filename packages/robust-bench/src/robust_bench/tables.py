"""Results as text tables: the only place, with the report page, where fractions become per cent."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from robust_bench.result import Result, Row

SEVERITIES = (1, 2, 3, 4, 5)


def percent(value: float) -> str:
    """Write a fraction as per cent with one decimal.

    Examples:
        >>> percent(0.9775)
        '97.8'
    """
    return f"{100.0 * value:.1f}"


def table(results: Sequence["Result"]) -> RenderableType:
    """Lay out results side by side: accuracies with intervals, then corruptions by severity."""
    parts: list[RenderableType] = []
    if any(not is_corruption(row) for result in results for row in result.rows):
        parts.append(_accuracies(results))
    if any(is_corruption(row) for result in results for row in result.rows):
        parts.append(_corruptions(results))
    if not parts:
        parts.append(Text(f"no rows ({', '.join(result.model for result in results) or 'no results'})"))
    return Group(*parts)


def render(renderable: RenderableType, width: int = 160) -> str:
    """Turn something that rich can print into plain text, without colours or trailing spaces."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def is_corruption(row: "Row") -> bool:
    """Tell whether the row is a cell of the corruption table."""
    return row.settings.get("kind") == "corruption" and row.settings.get("severity") in SEVERITIES


def _accuracies(results: Sequence["Result"]) -> Table:
    out = Table(box=box.SIMPLE_HEAD, title="Accuracy, % (95 % interval)", title_justify="left", pad_edge=False)
    out.add_column("condition")
    for result in results:
        out.add_column(Text(result.model), justify="right")
    out.add_column("images", justify="right")
    found: dict[tuple[str, str], list[Row | None]] = {}
    for position, result in enumerate(results):
        for row in result.rows:
            if not is_corruption(row):
                cells = found.setdefault((row.benchmark, row.condition), [None] * len(results))
                cells[position] = row
    for (_, condition), cells in found.items():
        counts = sorted({row.count for row in cells if row is not None})
        texts = [
            "–" if row is None else f"{percent(row.value)} ({percent(row.low)}–{percent(row.high)})" for row in cells
        ]
        out.add_row(Text(condition), *texts, ", ".join(map(str, counts)))
    return out


def _corruptions(results: Sequence["Result"]) -> Table:
    out = Table(
        box=box.SIMPLE_HEAD, title="Accuracy under corruption, %, by severity", title_justify="left", pad_edge=False
    )
    out.add_column("corruption")
    out.add_column("model")
    for severity in SEVERITIES:
        out.add_column(str(severity), justify="right")
    out.add_column("mean", justify="right")
    names = dict.fromkeys(
        (row.benchmark, str(row.settings["corruption"]))
        for result in results
        for row in result.rows
        if is_corruption(row)
    )
    for name in names:
        for position, result in enumerate(results):
            cells = {
                row.settings["severity"]: row.value
                for row in result.rows
                if is_corruption(row) and (row.benchmark, row.settings["corruption"]) == name
            }
            if cells:
                texts = [percent(cells[severity]) if severity in cells else "–" for severity in SEVERITIES]
                mean = percent(sum(cells.values()) / len(cells)) if len(cells) == len(SEVERITIES) else "–"
                out.add_row(Text(name[1] if position == 0 else ""), Text(result.model), *texts, mean)
    return out
