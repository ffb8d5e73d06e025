"""Results as CSV, Markdown and JSON, for spreadsheets, papers and programs."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from robust_bench import markdown
from robust_bench.comparison import Comparison
from robust_bench.files import write_durably
from robust_bench.result import Result
from robust_bench.tables import table

COLUMNS = (
    "model", "benchmark", "condition", "metric", "unit", "value", "low", "high", "correct", "count", "seconds",
    "settings",
)  # fmt: skip
"""Of the CSV file."""


def write_table(results: Sequence[Result], path: str | Path) -> Path:
    """Write results to a file, whose suffix says how: .csv, .md or .json.

    CSV (RFC 4180) has one line per row, with everything as fractions and the settings as JSON; Markdown has the tables
    that `robust-bench` prints, in per cent; JSON is a list of result documents.

    Args:
        results: of one model or several.
        path: of the file; its folder is made.

    Raises:
        ValueError: if there are no results, or the suffix is another one.

    Examples:
        >>> write_table([], "table.xlsx")
        Traceback (most recent call last):
        ...
        ValueError: a table is written as .csv, .md or .json, got 'table.xlsx'
    """
    file = Path(path)
    if file.suffix not in _WRITERS:
        raise ValueError(f"a table is written as .csv, .md or .json, got {file.name!r}")
    if not results:
        raise ValueError(f"there is no result to write to {file}")
    return write_durably(file, _WRITERS[file.suffix](results))


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the comparison of two runs to a file, whose suffix says how: .json, without loss, or .md, its tables.

    Raises:
        ValueError: if the suffix is another one.
    """
    file = Path(path)
    if file.suffix not in (".json", ".md"):
        raise ValueError(f"a comparison is written as .json or .md, got {file.name!r}")
    text = comparison.to_json() if file.suffix == ".json" else markdown.of(comparison.__rich__())
    return write_durably(file, text)


def _csv(results: Sequence[Result]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for result in results:
        for row in result.rows:
            known = [getattr(row, name) for name in COLUMNS[1:-1]]
            writer.writerow([result.model, *known, json.dumps(row.settings, ensure_ascii=False)])
    return out.getvalue()


def _markdown(results: Sequence[Result]) -> str:
    return markdown.of(table(results))


def _json(results: Sequence[Result]) -> str:
    return json.dumps([json.loads(result.to_json()) for result in results], indent=1, ensure_ascii=False) + "\n"


_WRITERS: Mapping[str, Callable[[Sequence[Result]], str]] = {".csv": _csv, ".md": _markdown, ".json": _json}
