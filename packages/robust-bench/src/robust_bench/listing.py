"""What there is to run: benchmarks with the status of their data, and models."""

import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robust_bench import benchmarks


def status(name: str, data: Path | None) -> str:
    """Say whether a benchmark's data are there: "embedded", "found", "not found", or "needs --data"."""
    entry = benchmarks.entry(name)
    if entry.layout is None:
        return "embedded"
    if data is None:
        return "needs --data"
    return "found" if benchmarks.is_there(entry, data) else "not found"


def overview(data: Path | None) -> RenderableType:
    """A table of all benchmarks."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("benchmark", "data", "what"):
        out.add_column(heading)
    for name, entry in benchmarks.ENTRIES.items():
        out.add_row(Text(name), Text(status(name, data)), Text(entry.about))
    return Group(out, Text("\nlist NAME says what a benchmark needs, list --models 'resnet*' which models there are."))


def details(names: Sequence[str], data: Path | None) -> RenderableType:
    """Everything about some benchmarks.

    Raises:
        ValueError: for an unknown name.
    """
    parts = []
    for name in names:
        entry = benchmarks.entry(name)
        lines = [f"{name}: {entry.about}", f"  source: {entry.source}", f"  data: {status(name, data)}"]
        if entry.folders:
            lines.append(f"  folder below --data: {' or '.join(entry.folders)}")
        if entry.layout is not None:
            lines.append(f"  {entry.layout}")
        parts.append(Text("\n".join(lines)))
    return Group(*parts)


def as_json(data: Path | None) -> str:
    """All benchmarks as JSON text."""
    listed = [
        {
            "name": name,
            "about": entry.about,
            "source": entry.source,
            "data": status(name, data),
            "folders": list(entry.folders),
            "layout": entry.layout,
        }
        for name, entry in benchmarks.ENTRIES.items()
    ]
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def models(pattern: str) -> RenderableType:
    """Models whose names fit a pattern such as "resnet*", and whether timm has published weights of them.

    Raises:
        ValueError: if there is none.
    """
    import robust_models  # noqa: F401  # registers its own models with timm
    import timm

    published = {name.partition(".")[0] for name in timm.list_pretrained()}
    names = [name for name in timm.list_models() if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"no model is called {pattern!r}: names may hold *, as in 'resnet*'")
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("model", "published weights"):
        out.add_column(heading)
    for name in names:
        out.add_row(Text(f"timm:{name}" if name in published else name), Text("timm" if name in published else "none"))
    return out
