"""The published robust weights that the zoo knows, and how users add their own."""

import difflib
import fnmatch
import json
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from robust_models.entry import LOWER_IS_BETTER, read_entry
from robust_models.entry import Checkpoint as Checkpoint
from robust_models.entry import Entry as Entry
from robust_models.entry import Preprocess as Preprocess
from robust_models.entry import Threat as Threat
from robust_models.timm_weights import timm_entries

_registered: dict[str, Entry] = {}


def get_entry(name: str) -> Entry:
    """Return the entry of that name.

    Beside those that `list_models` gives there are `auxiliary/...`: weights with which models are built or trained,
    such as VQGANs, which can be downloaded like any other.

    Raises:
        ValueError: if there is none, with the names that come close.
    """
    known = {**_auxiliary(), **_entries()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    near = near or [other for other in known if name.lower() in other.lower()][:4]
    hint = f"did you mean {', '.join(near)}?" if near else "robust_models.list_models() lists what there is"
    raise ValueError(f"no entry of the zoo is called {name!r}: {hint}")


def register_entry(entry: Entry, *, replace: bool = False) -> None:
    """Add an entry for the rest of this process.

    Files of entries are added for good by the environment variable `ROBUST_MODELS_REGISTRY`: paths of JSON or TOML
    files, separated as in PATH, that hold a list of entries under `models`, with the fields of `Entry`.

    Raises:
        ValueError: if the name is taken and `replace` is false.
    """
    if not replace and entry.name in _entries():
        raise ValueError(f"the zoo has an entry {entry.name} already: choose another name, or pass replace=True")
    _registered[entry.name] = entry


def list_models(
    pattern: str = "*",
    *,
    family: str | None = None,
    arch: str | None = None,
    dataset: str | None = None,
    threat: str | None = None,
    source: str | None = None,
    loadable: bool | None = None,
    sort: str = "autoattack",
) -> list[Entry]:
    """Return the entries that match, the best first.

    Args:
        pattern: of the name, as in `fnmatch`: `"light/*xcit*"`.
        family: as in the entry or at the begin of its name, a pattern too: `"robustbench"`, `"light"`.
        arch: as in the entry, a pattern too: `"resnet50*"`.
        dataset: as in the entry, a pattern too: `"imagenet1k"`.
        threat: `"Linf"`, `"Linf 4/255"`, or `"none"` for entries that were not trained against one.
        source: part of `metrics_source`, e.g. `"RobustBench"`; numbers of different sources were measured by different
            protocols and cannot be compared.
        loadable: whether a file is published and can be loaded; None takes both.
        sort: the metric that decides the order, or "name". Entries without it come last, by name.

    Raises:
        ValueError: if no entry at all has the metric `sort`, or `threat` is not written like that.
    """
    entries = list(_entries().values())
    metrics = sorted({metric for entry in entries for metric in entry.metrics})
    if sort != "name" and sort not in metrics:
        raise ValueError(f"no entry has a metric {sort!r} to sort by: take name, {', '.join(metrics)}")
    found = [
        entry
        for entry in entries
        if _matches(entry.name, pattern)
        and (_matches(entry.family or "", family) or _matches(entry.name.partition("/")[0], family))
        and _matches(entry.arch, arch)
        and _matches(entry.dataset, dataset)
        and (threat is None or _has_threat(entry, threat))
        and (source is None or source.lower() in (entry.metrics_source or "").lower())
        and loadable in (None, entry.loadable)
    ]
    sign = 1 if sort.endswith(LOWER_IS_BETTER) else -1
    return sorted(found, key=lambda entry: (sort not in entry.metrics, sign * entry.metrics.get(sort, 0), entry.name))


def _entries() -> dict[str, Entry]:
    """Every entry by name: ours, timm's, those of the user's files, those registered in this process."""
    found = {**_published(), **timm_entries()}
    for path in filter(None, os.environ.get("ROBUST_MODELS_REGISTRY", "").split(os.pathsep)):
        added = _read(Path(path))
        if taken := sorted(found.keys() & added.keys()):
            raise ValueError(f"{path} has entries whose names are taken: {', '.join(taken)}; rename them there")
        found |= added
    return found | _registered


@cache
def _published() -> dict[str, Entry]:
    return _parsed(_zoo())


@cache
def _auxiliary() -> dict[str, Entry]:
    """Published weights that are no classifiers."""
    entries = [
        Entry(
            name=f"auxiliary/{row['name']}",
            arch=row["used_by"],
            arch_source="not planned",
            urls=(row["url"],),
            sha256=row["sha256"],
            sha256_policy=row["sha256_policy"],
            note=f"no classifier; used by {row['used_by']}",
            loadable=False,
        )
        for row in _zoo()["auxiliary_weights"]
    ]
    return {entry.name: entry for entry in entries}


@cache
def _zoo() -> Any:
    return json.loads(files("robust_models").joinpath("zoo.json").read_text(encoding="utf-8"))


def _read(file: Path) -> dict[str, Entry]:
    """The entries of one of the user's files."""
    if not file.is_file():
        raise FileNotFoundError(f"ROBUST_MODELS_REGISTRY names {file}, which is not there")
    try:
        text = file.read_text(encoding="utf-8")
        return _parsed(tomllib.loads(text) if file.suffix == ".toml" else json.loads(text))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _parsed(content: Any) -> dict[str, Entry]:
    rows = content.get("models") if isinstance(content, Mapping) else content
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("a registry holds a list of entries, at the top or under `models`")
    entries = [read_entry(row) for row in rows]
    named = {entry.name: entry for entry in entries}
    if len(named) < len(entries):
        names = [entry.name for entry in entries]
        raise ValueError(f"two entries have one name: {next(name for name in names if names.count(name) > 1)}")
    return named


def _matches(value: str, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatchcase(value.lower(), pattern.lower())


def _has_threat(entry: Entry, wanted: str) -> bool:
    norm, _, eps = wanted.partition(" ")
    if entry.threat is None:
        return norm.lower() == "none"
    radius = Threat(norm=norm, eps=eps).radius
    if eps and radius is None:
        raise ValueError(f"a threat is a norm and a radius such as 'Linf 4/255', got {wanted!r}")
    return norm.lower() == entry.threat.norm.lower() and radius in (None, entry.threat.radius)
