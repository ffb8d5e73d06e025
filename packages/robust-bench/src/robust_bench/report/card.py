"""The result card on a model's page: what somebody needs to repeat the run."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_bench.kept import begun
from robust_bench.report.checkpoints import about_model
from robust_bench.report.data import steps
from robust_bench.result import Result

Facts = tuple[tuple[str, str], ...]
_COUNTS = ("parameters", "multiply_adds", "images", "images_expected", "of", "skipped")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything about a run but its numbers.

    Args:
        command: which does it again, an option a line; empty where the result comes from a program.
        model: how it was built, with the hash of its weights.
        run: seed, batch size, device, date, time.
        versions: of all software that matters.
        data: for every data set what the images are, and how they were preprocessed.
        fingerprints: for every part that was evaluated the number of its images and their sha256.
        warnings: what makes the numbers doubtful.
    """

    command: str
    model: Facts
    run: Facts
    versions: Facts
    data: tuple[tuple[str, Facts], ...]
    fingerprints: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]


def card(result: Result, folder: Path) -> Card:
    """Fill in the card of a result; what is not known is left out.

    Args:
        result: of one model.
        folder: where it lies; the hashes are in its `evaluations`.

    Raises:
        ValueError: if a fingerprint there is damaged.
    """
    parts = begun(folder)
    hashes = dict.fromkeys(str(part.fingerprint["model_sha256"]) for part in parts.values())
    data = _mapping(result.settings.get("data"))
    return Card(
        command=_command(result),
        model=_facts({**about_model(result), "sha256 of the model": ", ".join(hashes) or None}),
        run=_run(result),
        versions=tuple(result.versions.items()),
        data=tuple((name, _facts({**about, **_steps(about)})) for name, about in data.items()),
        fingerprints=tuple(
            (name, f"{part.fingerprint['images']:,}", str(part.fingerprint["data_sha256"]))
            for name, part in parts.items()
        ),
        warnings=tuple(map(str, result.settings.get("warnings") or ())),
    )


def _command(result: Result) -> str:
    from robust_bench.card import command  # imported here, since the runner, which it knows, imports the report

    settings = result.settings.get("command")
    if not isinstance(settings, Mapping):
        return ""
    lines: list[list[str]] = [[]]
    for word in shlex.split(command(settings)):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)


def _run(result: Result) -> Facts:
    known = {key: result.settings.get(key) for key in ("batch_size", "device")}
    seconds = sum(row.seconds for row in result.rows)
    time = f"{seconds:,.1f} seconds in {len(result.rows)} rows"
    return _facts(
        {"benchmarks": result.benchmark, "seed": result.seed, **known, "created": result.created or None, "time": time}
    )


def _steps(about: Mapping[str, Any]) -> dict[str, str]:
    return {"preprocessing": words} if (words := steps(about)) else {}


def _facts(known: Mapping[str, Any]) -> Facts:
    return tuple(
        (key.replace("_", " "), f"{value:,}" if key in _COUNTS and type(value) is int else str(value))
        for key, value in known.items()
        if value is not None
    )


def _mapping(value: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return {}
    return {str(key): inner for key, inner in value.items() if isinstance(inner, Mapping)}
