"""The leaderboard for programs and spreadsheets: the same numbers as JSON and as CSV, all as fractions."""

import csv
import io
import json
from typing import Any

from robust_bench.report.columns import Column, Group
from robust_bench.report.leaderboard import Leaderboard, Line

FORMAT = "robust-leaderboard/1"
_HEADINGS = (
    "model", "page", "architecture", "parameters", "multiply_adds", "benchmark", "title", "condition", "metric", "unit",
    "lower_is_better", "images", "value", "low", "high",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def page_of(line: Line) -> str:
    """Give the address of a model's page, from the leaderboard."""
    return f"models/{line.slug}.html"


def as_json(board: Leaderboard) -> str:
    """Write columns, and for every model its numbers with the columns' positions."""
    columns = [(group, column) for group in board.groups for column in group.columns]
    document = {
        "format": FORMAT,
        "columns": [_about(group, column) | {"settings": dict(column.row.settings)} for group, column in columns],
        "models": [
            _model(line)
            | {
                "resized": dict(line.resized),
                "checkpoints": line.checkpoints,
                "scores": [
                    {"column": number, "value": row.value, "low": row.low, "high": row.high, "correct": row.correct}
                    for number, (_, column) in enumerate(columns)
                    if (row := column.cells[line.position]) is not None
                ],
            }
            for line in board.lines
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(board: Leaderboard) -> str:
    """Write one line per number (RFC 4180).

    A spreadsheet takes text that begins with =, +, - or @ for a formula; such text gets an apostrophe before it.
    """
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, _HEADINGS)
    writer.writeheader()
    for line in board.lines:
        for group in board.groups:
            for column in group.columns:
                if (row := column.cells[line.position]) is not None:
                    numbers = {"value": row.value, "low": row.low, "high": row.high}
                    known = _model(line) | _about(group, column) | numbers
                    writer.writerow({key: _text(value) for key, value in known.items()})
    return out.getvalue()


def _model(line: Line) -> dict[str, Any]:
    return {
        "model": line.model,
        "page": page_of(line),
        "architecture": line.architecture,
        "parameters": line.parameters,
        "multiply_adds": line.multiply_adds,
    }


def _about(group: Group, column: Column) -> dict[str, Any]:
    row = column.row
    return {
        "benchmark": group.title,
        "title": " – ".join((column.title, *column.about)),
        "condition": row.condition,
        "metric": row.metric,
        "unit": row.unit,
        "lower_is_better": column.lower,
        "images": row.count,
    }


def _text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
