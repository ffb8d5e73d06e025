"""The site: a leaderboard of many runs, with a page for every model."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_bench.files import check_folder, write_durably
from robust_bench.report import curve
from robust_bench.report.card import Card, card
from robust_bench.report.downloads import FORMAT, as_csv, as_json, page_of
from robust_bench.report.heatmap import heat_map, is_cell
from robust_bench.report.leaderboard import Leaderboard, Line, leaderboard
from robust_bench.report.run_folder import Figure, distinct, figures_of, result_files
from robust_bench.report.sections import by_data
from robust_bench.report.templates import page
from robust_bench.result import Result

_PAGE = re.compile(r"models/[a-z0-9._-]+\.html")


def write_site(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write a leaderboard of all models in run folders, and return the path of its `index.html`.

    Beside it lie `leaderboard.json` and `leaderboard.csv` with the same numbers, and `models/<name>.html` for every
    model. All pages open from the file system, load nothing, and can be read without script; with it, the table sorts
    and filters. Names from results are text, whatever they contain. Pages of models that an earlier leaderboard in
    this folder had, and this one does not have, are removed.

    Args:
        runs: run folders, each with `result.json` or `<model>/result.json`. Models of the same name get that of their
            folder as well; a result that is there twice counts once.
        out: the folder for the site.

    Raises:
        FileNotFoundError: if a run folder, a result in it, or a listed figure is missing.
        NotADirectoryError: if `out` is a file.
        ValueError: if there are no run folders, or a result or an index of figures is damaged.
    """
    if not runs:
        raise ValueError("a leaderboard needs at least one run folder, e.g. runs/*")
    found = {file.resolve(): (file, run) for run in runs for file in result_files(run)}
    files = [file for file, _ in found.values()]
    originals = [Result.load(file) for file in files]
    figures = {run: figures_of(run) for _, run in found.values()}
    folder = Path(out)
    check_folder(folder)
    results = distinct(originals, files)
    board = leaderboard(results)
    earlier = _pages(folder)
    for line in board.lines:
        file = files[line.position]
        about = card(originals[line.position], file.parent)
        html = _model_page(board, line, originals[line.position], about, figures[found[file.resolve()][1]])
        write_durably(folder / page_of(line), html)
    write_durably(folder / "leaderboard.json", as_json(board))
    write_durably(folder / "leaderboard.csv", as_csv(board))
    index = write_durably(folder / "index.html", index_page(board, results))
    for name in earlier - {page_of(line) for line in board.lines}:
        (folder / name).unlink(missing_ok=True)
    return index


def index_page(board: Leaderboard, results: Sequence[Result]) -> str:
    """Render the page of all models as HTML text."""
    dates = sorted(result.created[:10] for result in results if result.created)
    return page(
        "board.html.j2",
        styles=("board.css",),
        script="board.js",
        board=board,
        models=[result.model for result in results],
        page_of=page_of,
        latest=dates[-1] if dates else "",
    )


def _model_page(board: Leaderboard, line: Line, result: Result, about: Card, figures: Sequence[Figure]) -> str:
    parts = [
        {
            "title": title,
            "curves": curve.curves(rows[0]),
            "heat": heat_map(rows[0]),
            "rows": [row for row in rows[0] if not is_cell(row)],
        }
        for title, rows in by_data([result]).items()
    ]
    return page(
        "model.html.j2",
        styles=("model.css",),
        box=curve,
        line=line,
        result=result,
        choices=[choice for choice in board.choices if line.position in choice.models],
        parts=parts,
        figures=figures,
        card=about,
        conditions=[
            {"benchmark": row.benchmark, "condition": row.condition, "metric": row.metric, **row.settings}
            for row in result.rows
        ],
    )


def _pages(folder: Path) -> set[str]:
    """The models' pages of the leaderboard that lies in a folder; none if something else does."""
    try:
        document: Any = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
        listed = document["models"] if document["format"] == FORMAT else []
        names = {str(model["page"]) for model in listed}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {name for name in names if _PAGE.fullmatch(name)}
