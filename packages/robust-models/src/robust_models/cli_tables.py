"""Entries of the zoo as text: a table, a description, JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from robust_models.entry import Entry


def table(entries: Sequence[Entry], metric: str) -> str:
    """Return one line per entry, with the clean accuracy and `metric`, under a line of headings."""
    metrics = [name for name in dict.fromkeys(("clean", metric)) if name != "name"]
    rows = [("name", "architecture", "data", "threat", *metrics, "loads")]
    for entry in entries:
        numbers = [f"{entry.metrics[name]:.2f}" if name in entry.metrics else "-" for name in metrics]
        threat, loads = str(entry.threat or "-"), "yes" if entry.loadable else "no"
        rows.append((entry.name, entry.arch, entry.dataset, threat, *numbers, loads))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(entries: Sequence[Entry]) -> str:
    """Return a Markdown table of the entries, and under it the sources of the numbers that it refers to."""
    sources = {source: number for number, source in enumerate(dict.fromkeys(_source(entry) for entry in entries), 1)}
    heads = ("name", "architecture", "data", "trained against", "clean, %", "AutoAttack, %", "source", "weights")
    rows: list[tuple[str, ...]] = [heads, ("---", "---", "---", "---", "---:", "---:", "---", "---")]
    for entry in entries:
        numbers = [f"{entry.metrics[name]:g}" if name in entry.metrics else "" for name in ("clean", "autoattack")]
        licence = "restricted licence" if entry.restricted else "published"
        status = licence if entry.loadable else "not loadable"
        source = f"[{sources[_source(entry)]}]"
        rows.append((f"`{entry.name}`", entry.arch, entry.dataset, str(entry.threat or ""), *numbers, source, status))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- [{number}] {source}" for source, number in sources.items())])


def _source(entry: Entry) -> str:
    return entry.metrics_source or "no number was printed"


def describe(entry: Entry, local: Mapping[str, object]) -> str:
    """Return every field of `entry` that is known, and then those of `local`, one a line."""
    lines = []
    for name, value in (asdict(entry) | dict(local)).items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {held}" for key, held in value.items() if held is not None)
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            lines.append(f"{name + ':':18}{value}")
    return "\n".join(lines)


def as_json(entries: Entry | Sequence[Entry]) -> str:
    """Return the fields of one entry or of several as JSON."""
    return json.dumps(asdict(entries) if isinstance(entries, Entry) else [asdict(entry) for entry in entries], indent=1)
