"""Figures in a run folder, and the index that a report reads."""

import contextlib
import io
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.figure import Figure

from robust_viz._text import printable
from robust_viz.curves import AccuracyCurve, accuracy_curves, accuracy_vs_eps, describe
from robust_viz.heatmaps import corruption_benchmarks, corruption_heatmap
from robust_viz.results import Record, read_run

FORMAT = "robust-figures/1"
PNG_DPI = 200
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_rendering = threading.Lock()  # fixed ids in an SVG come from matplotlib's settings, which all threads share
_indexing = threading.Lock()  # the index is read, changed and written


def write_figures(run: str | os.PathLike[str], *, png: bool = False) -> tuple[Path, ...]:
    """Draw all figures that the results in a run folder allow, into its folder `figures`, as `robust-viz figures`.

    Written are accuracy over eps for each benchmark and norm, and a heat map for each benchmark with corruptions. A
    second call writes the same bytes. Figures drawn from results that are not drawn again are removed, those that
    others have put there stay, in the index as well.

    Args:
        run: the folder; it holds `result.json`, or one per model one level below, as `<model>/result.json`.
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
    folder = Path(run)
    inputs = {
        record.file.relative_to(folder).as_posix(): record.digest for record in records if record.file is not None
    }
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
            "intervals.",
            _about_clean(shown, _with_clean(records, benchmark)),
            origin,
            describe(shown),
        )
        course = "; ".join(_course(curve) for curve in shown)
        alt = (f"Line chart of accuracy over {norm} eps on {benchmark}: {course}.", parts[1])
        paths.append(
            add_figure(
                run,
                accuracy_vs_eps(records, norm=norm, benchmark=benchmark),
                f"accuracy-vs-eps-{_slug(benchmark)}-{_slug(norm)}",
                f"Accuracy on {benchmark} over {norm} eps",
                " ".join(filter(None, parts)),
                " ".join(filter(None, alt)),
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
    _forget(folder / "figures", {path.name for path in paths})
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
    inputs: Mapping[str, str] | None = None,
    png: bool = False,
) -> Path:
    """Put a figure into a run folder, as `figures/<name>.svg`, and into the index that reports read.

    The same figure gives the same bytes. Files appear under their names only when they are complete. A figure of the
    same name is replaced, in its place in the index, and so is its PNG, which is removed without `png`. Control
    characters in texts are replaced: an SVG must not have them.

    Args:
        folder: the run folder; it is made if it does not exist.
        figure: what to draw.
        name: of the file, without ending: letters, digits, `-` and `_`.
        title: a few words.
        caption: what is seen, with models, settings and seed.
        alt: the text that stands for the figure where it cannot be seen.
        inputs: of a figure drawn from results, the sha256 of each result file by its path in the run folder, as
            `{"robust/result.json": "9f86d0..."}`: reports see by it whether the figure is out of date, and
            `write_figures` takes such figures for its own. None for any other figure.
        png: write a PNG too, at 200 dots per inch.

    Returns:
        The path of the SVG file.

    Raises:
        TypeError: if `inputs` is not a mapping.
        ValueError: if `name` cannot be a file name, a text is empty, or the index there is not one.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(f"inputs are a mapping of result files to their sha256, got a {type(inputs).__name__}")
    title, caption, alt = (printable(text) for text in (title, caption, alt))
    if not re.fullmatch(NAME, name):
        raise ValueError(f"a figure's name has letters, digits, - and _ only, as 'accuracy-vs-eps', got {name!r}")
    for what, text in (("title", title), ("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"the figure {name} needs a {what}: the report shows it, and screen readers read it")
    target = Path(folder) / "figures"
    entry: dict[str, Any] = {"file": f"{name}.svg", "title": title, "caption": caption, "alt": alt}
    if inputs is not None:
        entry["inputs"] = dict(inputs)
    _read_index(target / "index.json")  # refuse a foreign one before anything is written
    svg, pixels = _svg(figure, title, alt), _render(figure, "png") if png else None
    with _indexing:
        index = _read_index(target / "index.json")
        target.mkdir(parents=True, exist_ok=True)
        _write(target / f"{name}.svg", svg)
        places = [i for i, other in enumerate(index) if other["file"] == entry["file"]]
        if pixels is not None:
            _write(target / f"{name}.png", pixels)
        elif places:
            (target / f"{name}.png").unlink(missing_ok=True)
        if places:
            index[places[0]] = entry
        else:
            index.append(entry)
        _write_index(target / "index.json", index)
    return target / f"{name}.svg"


def _forget(folder: Path, drawn: set[str]) -> None:
    """Remove the figures of earlier results that are not among those now `drawn`, from index and folder."""
    with _indexing:
        index = _read_index(folder / "index.json")
        old = [entry for entry in index if isinstance(entry.get("inputs"), dict) and entry["file"] not in drawn]
        if not old:
            return
        _write_index(folder / "index.json", [entry for entry in index if entry not in old])
        for entry in old:
            if re.fullmatch(rf"{NAME}\.svg", entry["file"]):  # an index must not point out of the folder
                for file in (folder / entry["file"], (folder / entry["file"]).with_suffix(".png")):
                    file.unlink(missing_ok=True)


def _write_index(file: Path, index: Sequence[Mapping[str, Any]]) -> None:
    content = json.dumps({"format": FORMAT, "figures": index}, indent=2, ensure_ascii=False) + "\n"
    _write(file, content.encode())


def _read_index(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        data = json.loads(file.read_bytes())
        figures = data["figures"] if data["format"] == FORMAT else None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not an index of figures ({error!r}): move it away and draw again") from error
    if not isinstance(figures, list) or not all(
        isinstance(f, dict) and isinstance(f.get("file"), str) for f in figures
    ):
        raise ValueError(f"{file} is not an index of format {FORMAT}: move it away and draw again")
    return figures


def _svg(figure: Figure, title: str, alt: str) -> bytes:
    """The figure as SVG, with title and description where browsers and screen readers look for them."""
    text = printable(_render(figure, "svg", Title=title).decode())  # labels stand in comments
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


def _with_clean(records: Sequence[Record], benchmark: str) -> set[str]:
    """The models whose clean accuracy was measured on `benchmark`."""
    return {
        r.model for r in records for row in r.rows if row.benchmark == benchmark and row.settings.get("kind") == "clean"
    }


def _about_clean(curves: Sequence[AccuracyCurve], clean: set[str]) -> str:
    """What eps 0 means, if it is there."""
    have = [curve.model in clean for curve in curves]
    if not any(have):
        return ""
    return "eps 0 is the clean accuracy." if all(have) else "eps 0 is the clean accuracy, where it was measured."


def _course(curve: AccuracyCurve) -> str:
    """A curve in words."""
    first, last = curve.accuracy[0], curve.accuracy[-1]
    if len(curve.eps) == 1:
        return f"{curve.model} is at {first:.1%} at eps {curve.eps[0]:.3g}"
    verb = "rises" if last > first else "falls" if last < first else "goes"
    return f"{curve.model} {verb} from {first:.1%} at eps {curve.eps[0]:.3g} to {last:.1%} at {curve.eps[-1]:.3g}"


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
