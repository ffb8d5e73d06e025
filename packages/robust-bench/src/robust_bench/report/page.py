"""The report page: tables and figures of a run folder in one HTML file without any external resource."""

from pathlib import Path

from robust_bench.files import check_folder, write_durably
from robust_bench.report.run_folder import RunFolder
from robust_bench.report.sections import sections
from robust_bench.report.templates import page


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the report page of a run folder and return the path of its `index.html`.

    The page opens from the file system and without script; it follows the reader's light or dark setting, fits narrow
    screens and prints. Names from results are text, whatever they contain.

    Args:
        run: the run folder.
        out: the folder for the page; None means `report` inside the run folder.

    Raises:
        FileNotFoundError: if the run folder, a result in it, or a listed figure is missing.
        NotADirectoryError: if `out` is a file.
        ValueError: if a result or the index of figures is damaged.
    """
    found = RunFolder.read(run)
    folder = found.path / "report" if out is None else Path(out)
    check_folder(folder)
    return write_durably(folder / "index.html", render(found))


def render(run: RunFolder) -> str:
    """Render a run folder as HTML text."""
    return page(
        "run.html.j2",
        title=run.path.resolve().name,
        results=run.results,
        sections=sections(run.results),
        figures=run.figures,
    )
