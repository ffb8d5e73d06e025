"""What a command was asked for."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

_PASSING = ("progress", "shard")
"""Settings that change nothing in what comes out."""


def command_of(settings: Any, without: Collection[str] = _PASSING) -> dict[str, Any]:
    """Give everything that was asked for, as one would write it into a file for --config.

    Args:
        settings: a dataclass, whose fields may be dataclasses themselves.
        without: fields that are left out, as are those that are None.

    Examples:
        >>> from robust_bench.benchmarks.attacks import Sweep
        >>> command_of(Sweep(steps=5), without=("eps",))["steps"]
        5
    """
    given = {entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(settings)}
    return {name: _plain(value) for name, value in given.items() if value is not None and name not in without}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path) else value
