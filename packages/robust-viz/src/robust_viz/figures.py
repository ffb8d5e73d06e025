"""Figures in a run folder, and the index that a report reads."""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.figure import Figure

from robust_viz.curves import accuracy_curves, accuracy_vs_eps, describe
from robust_viz.heatmaps import corruption_benchmarks, corruption_heatmap
from robust_viz.results import Record, read_run

FORMAT = "robust-figures/1"
PNG_DPI = 200
_rendering = threading.Lock()  # fixed ids in an SVG come from matplotlib's settings, which all threads share


def write_figures(run: str | os.PathLike[str], *, png: bool = False) -> tuple[Path, ...]:
    """Draw all figures that the results in a run folder allow, into its folder `figures`, as `robust-viz figures`.

    Written are accuracy over eps for each benchmark and norm, and a heat map for each benchmark with corruptions. A
    second call writes the same bytes. Figures that others have put there stay, in the index as well.

    Args:
        run: the folder; it holds `result.json`, or `<model>/result.json` one level below.
        png: write each figure as PNG too, at 200 dots per inch.

    Returns:
        The paths of the SVG files.

    Raises:
        FileNotFoundError: if the folder or a result in it does not exist.
        ValueError: if a file is not a result, or the results hold nothing that can be drawn.
    """
    records = read_run(run)
    if not any(record.rows for record in records):
        raise ValueError(f"the results in {run} have no rows with an accuracy: evaluate again")
    inputs = hashlib.sha256("".join(record.digest for record in records).encode()).hexdigest()
    models = _listed([record.model for record in records])
    seeds = sorted({record.seed for record in records if record.seed is not None})
    origin = f"Models: {models}." + (f" Seed {', '.join(map(str, seeds))}." if seeds else "")
    paths = []
    curves = accuracy_curves(records)
    for benchmark, norm in dict.fromkeys((curve.benchmark, curve.norm) for curve in curves):
        shown = [curve for curve in curves if (curve.benchmark, curve.norm) == (benchmark, norm)]
        attacks = _listed(list(dict.fromkeys(curve.attack for curve in shown)))
        parts = (
            f"Accuracy on {benchmark} over the {norm} eps of the attack ({attacks}). Bands are 95 % Clopper-Pearson "
            "intervals; eps 0 is the clean accuracy.",
            origin,
            describe(shown),
        )
        ends = (
            f"{c.model} falls from {c.accuracy[0]:.1%} at eps {c.eps[0]:.3g} to {c.accuracy[-1]:.1%} at {c.eps[-1]:.3g}"
            for c in shown
        )
        paths.append(
            add_figure(
                run,
                accuracy_vs_eps(records, norm=norm, benchmark=benchmark),
                f"accuracy-vs-eps-{_slug(benchmark)}-{_slug(norm)}",
                f"Accuracy on {benchmark} over {norm} eps",
                " ".join(filter(None, parts)),
                f"Line chart of accuracy over {norm} eps on {benchmark}: {'; '.join(ends)}.",
                inputs=inputs,
                png=png,
            )
        )
    for benchmark in corruption_benchmarks(records):
        path = add_figure(
            run,
            corruption_heatmap(records, benchmark=benchmark),
            f"corruptions-{_slug(benchmark)}",
            f"Error on corrupted {benchmark}",
            f"Error in % on {benchmark} per corruption and severity; hatched cells were not measured. {origin}",
            f"Heat map of the error on {benchmark}: {_means(records, benchmark)}.",
            inputs=inputs,
            png=png,
        )
        paths.append(path)
    if not paths:
        raise ValueError(
            f"the results in {run} hold neither attacks nor corruptions, so there is nothing to draw: evaluate with "
            "Attacked(...) or Corrupted(...) conditions"
        )
    return tuple(paths)


def add_figure(
    folder: str | os.PathLike[str],
    figure: Figure,
    name: str,
    title: str,
    caption: str,
    alt: str,
    *,
    inputs: str | None = None,
    png: bool = False,
) -> Path:
    """Put a figure into a run folder, as `figures/<name>.svg`, and into the index that reports read.

    The same figure gives the same bytes. Files appear under their names only when they are complete. A figure of the
    same name is replaced, in its place in the index.

    Args:
        folder: the run folder; it is made if it does not exist.
        figure: what to draw.
        name: of the file, without ending: letters, digits, `-` and `_`.
        title: a few words.
        caption: what is seen, with models, settings and seed.
        alt: the text that stands for the figure where it cannot be seen.
        inputs: sha256 of what the figure was made from; None takes that of the SVG itself.
        png: write a PNG too, at 200 dots per inch.

    Returns:
        The path of the SVG file.

    Raises:
        ValueError: if `name` cannot be a file name, a text is empty, or the index there is not one.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a figure's name has letters, digits, - and _ only, as 'accuracy-vs-eps', got {name!r}")
    for what, text in (("title", title), ("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"the figure {name} needs a {what}: the report shows it, and screen readers read it")
    target = Path(folder) / "figures"
    index = _read_index(target / "index.json")
    target.mkdir(parents=True, exist_ok=True)
    svg = _svg(figure, title, alt)
    _write(target / f"{name}.svg", svg)
    if png:
        _write(target / f"{name}.png", _render(figure, "png"))
    entry = {
        "file": f"{name}.svg",
        "title": title,
        "caption": caption,
        "alt": alt,
        "inputs": inputs or hashlib.sha256(svg).hexdigest(),
    }
    places = [i for i, other in enumerate(index) if other["file"] == entry["file"]]
    if places:
        index[places[0]] = entry
    else:
        index.append(entry)
    content = json.dumps({"format": FORMAT, "figures": index}, indent=2, ensure_ascii=False) + "\n"
    _write(target / "index.json", content.encode())
    return target / f"{name}.svg"


def _read_index(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        data = json.loads(file.read_bytes())
        figures = data["figures"] if data["format"] == FORMAT else None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not an index of figures ({error!r}): move it away and draw again") from error
    if not isinstance(figures, list) or not all(isinstance(f, dict) and "file" in f for f in figures):
        raise ValueError(f"{file} is not an index of format {FORMAT}: move it away and draw again")
    return figures


def _svg(figure: Figure, title: str, alt: str) -> bytes:
    """The figure as SVG, with title and description where browsers and screen readers look for them."""
    text = _render(figure, "svg", Title=title).decode()
    start = text.index(">", text.index("<svg ")) + 1
    return f"{text[:start]}\n <title>{escape(title)}</title>\n <desc>{escape(alt)}</desc>{text[start:]}".encode()


def _render(figure: Figure, kind: str, **metadata: str) -> bytes:
    """The bytes of a figure; nothing in them depends on the time, the machine or earlier calls."""
    stream = io.BytesIO()
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    settings: Any = {"svg.hashsalt": "robust-viz", "svg.fonttype": "path", "savefig.bbox": None, "path.simplify": True}
    with _rendering, matplotlib.rc_context(settings):
        figure.savefig(stream, format=kind, dpi=PNG_DPI, facecolor="white", metadata={**nothing, **metadata})
    return stream.getvalue()


def _write(file: Path, content: bytes) -> None:
    with _replacing(file) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Lend a temporary name beside `file`; what was written there takes its place, unless something is raised."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _means(records: tuple[Record, ...], benchmark: str) -> str:
    words = []
    for record in records:
        errors = [
            1 - row.value
            for row in record.rows
            if row.benchmark == benchmark and row.settings.get("kind") == "corruption"
        ]
        if errors:
            words.append(f"{record.model} errs on {sum(errors) / len(errors):.1%} on average")
    return "; ".join(words)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
