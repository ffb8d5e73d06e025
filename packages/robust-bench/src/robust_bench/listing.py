"""What there is to run: benchmarks with the status of their data, and models."""

import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    out = _columns("benchmark", "data", "what")
    for name, entry in benchmarks.ENTRIES.items():
        out.add_row(Text(name), Text(status(name, data)), Text(entry.about))
    more = "\nlist NAME says what a benchmark needs, list --models which robust models there are,\n"
    return Group(out, Text(more + "list --models 'resnet*' which others."))


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


def models(pattern: str | None) -> RenderableType:
    """Models to evaluate: with a pattern such as "resnet*" those whose names fit, without one the zoo of robust ones.

    Raises:
        ValueError: if there is none.
    """
    import robust_models
    import timm

    entries = robust_models.list_models(pattern or "*")
    names = [] if pattern is None else [name for name in timm.list_models() if fnmatch.fnmatchcase(name, pattern)]
    if not names and not entries:
        raise ValueError(f"no model is called {pattern!r}: names may hold *, as in 'resnet*' or 'robustbench/*'")
    parts: list[RenderableType] = []
    if names:
        published = {name.partition(".")[0] for name in timm.list_pretrained()}
        built = _columns("model", "published weights")
        for name in names:
            known = name in published
            built.add_row(Text(f"timm:{name}" if known else name), Text("timm" if known else "none"))
        parts.append(built)
    if entries:
        parts += [Text(""), _zoo(entries)] if parts else [_zoo(entries)]
        parts.append(Text("\nPrinted numbers; those of different sources were measured by different protocols."))
    return Group(*parts)


def _zoo(entries: Sequence[Any]) -> Table:
    """The entries of the zoo of robust-models with the numbers that were printed for them."""
    out = _columns("model", "architecture", "data set", "trained against", "clean %", "AutoAttack %", "weights")
    for entry in entries:
        numbers = (entry.metrics.get(name) for name in ("clean", "autoattack"))
        clean, attacked = ("-" if number is None else f"{number:g}" for number in numbers)
        status = "published" if entry.loadable else "not loadable"
        cells = (f"zoo:{entry.name}", entry.arch, entry.dataset, str(entry.threat or "-"), clean, attacked, status)
        out.add_row(*map(Text, cells))
    return out


def _columns(*headings: str) -> Table:
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        out.add_column(heading)
    return out
