"""What a corrupted copy of a data set says of itself, and what a result says of one."""

import datetime
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_bench.files import write_durably
from robust_bench.versions import versions

ABOUT = "corrupt.json"
KEPT = ".corrupt"
FORMAT = "robust-corrupt/1"
_CALLS = "calls"
_IN_RESULTS = ("preset", "variant", "seed", "frost", "jpeg85")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a copy.

    Args:
        corruptions: that are complete, with their severities.
        settings: for results: how the files were made.
    """

    corruptions: Mapping[str, Sequence[int]]
    settings: Mapping[str, Any]


def known(folder: Path) -> Known | None:
    """Read the `corrupt.json` of a copy; None where there is none.

    Raises:
        ValueError: if it is damaged.
    """
    file = folder / ABOUT
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, expected {FORMAT!r}")
        return Known(
            corruptions={name: list(severities) for name, severities in found["corruptions"].items()},
            settings={
                "by": f"robust-bench {found['versions']['robust-bench']}",
                **{name: found[name] for name in _IN_RESULTS},
                "clean": found["data"]["preprocessing"]["steps"],
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): remove it, and give the command again that made the copy"
        ) from error


def lacking(folder: Path, cells: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Name the corruptions and severities that `corrupt.json` does not say are complete."""
    found = known(folder)
    corruptions = {} if found is None else found.corruptions
    return [(name, severity) for name, severity in cells if severity not in corruptions.get(name, ())]


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `corrupt.json` with what calls have finished, which may be nothing yet.

    Every call keeps a file of its own and `corrupt.json` is put together from all of them, until no other has come
    meanwhile: so of calls that finish at the same time, the last to write knows all.

    Args:
        folder: of the copy.
        about: what is the same for all calls.

    Raises:
        ValueError: if the file of a call is damaged; it is named.
    """
    written = None
    while written != (files := sorted((folder / KEPT / _CALLS).glob("*.json"))):
        calls = [_call(file) for file in files]
        complete: dict[str, set[int]] = {}
        for call in calls:
            for name, severities in call["cells"].items():
                complete.setdefault(name, set()).update(severities)
        document = {
            "format": FORMAT,
            **about,
            "corruptions": {name: sorted(severities) for name, severities in complete.items()},
            "commands": calls,
            "versions": dict(versions()),
        }
        write_durably(folder / ABOUT, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        written = files


def add_call(folder: Path, cells: Iterable[tuple[str, int]], call: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write `corrupt.json`, when all these corruptions at their severities are there, beside those of before.

    Args:
        folder: of the copy.
        cells: that the call asked for.
        call: what is to be known of it.
        about: what is the same for all calls.

    Raises:
        ValueError: if the file of another call is damaged; it is named.
    """
    severities: dict[str, list[int]] = {}
    for name, severity in cells:
        severities.setdefault(name, []).append(severity)
    now = datetime.datetime.now(datetime.UTC)
    document = {"created": now.strftime("%Y-%m-%dT%H:%M:%SZ"), **call, "cells": severities}
    file = folder / KEPT / _CALLS / f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}.json"
    write_durably(file, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    write_about(folder, about)


def _call(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found["cells"] = {name: list(severities) for name, severities in found["cells"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): remove it, and give the same command again, and then those of corruptions "
            f"that {ABOUT} no longer names"
        ) from error
    return found


def generated(folder: Path, cells: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Give what a result must say of files that `robust-bench corrupt` made; nothing of others, as published ones.

    The same model differs by points between sets that were made anew and those that were downloaded.

    Args:
        folder: of the files.
        cells: the corruptions and severities that are evaluated.

    Raises:
        ValueError: if one of them is not complete, or `corrupt.json` is damaged.
    """
    found = known(folder)
    if found is None and not (folder / KEPT).is_dir():
        return {}
    for name, severity in lacking(folder, cells):
        raise ValueError(
            f"{name} at severity {severity} is not complete in {folder}: give the command `robust-bench corrupt` that "
            "began it again, it goes on from where it was"
        )
    return {} if found is None else {"generated": dict(found.settings)}
