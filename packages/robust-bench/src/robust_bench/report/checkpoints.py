"""Several checkpoints of one architecture on one set, of which somebody may pick the best."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robust_bench.report.columns import Group
from robust_bench.result import Result

_NOT_WEIGHTS = frozenset({"parameters", "multiply_adds", "num_classes", "in_chans"})


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Checkpoints of one architecture that were evaluated on the same set.

    Whoever picks the best of them has used the set to choose, so that its number is no longer an estimate for new
    images.

    Args:
        architecture: of all of them.
        count: different weights.
        sets: on which they were evaluated.
        models: their positions among the results.
    """

    architecture: str
    count: int
    sets: tuple[str, ...]
    models: tuple[int, ...]


def choices(results: Sequence[Result], groups: Sequence[Group]) -> tuple[Choice, ...]:
    """Find architectures of which several checkpoints were evaluated on the same set."""
    names = [architecture(result) for result in results]
    found: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for group in groups:
        by_architecture: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            if name and any(column.cells[position] is not None for column in group.columns):
                by_architecture.setdefault(name, []).append(position)
        for name, positions in by_architecture.items():
            found.setdefault((name, tuple(positions)), []).append(group.title)
    return tuple(
        Choice(architecture=name, count=count, sets=tuple(dict.fromkeys(sets)), models=positions)
        for (name, positions), sets in found.items()
        if (count := len({_weights(results[position]) for position in positions})) > 1
    )


def about_model(result: Result) -> Mapping[str, Any]:
    """Give what a result says of its model; nothing where that is not known."""
    known = result.settings.get("model")
    return known if isinstance(known, Mapping) else {}


def spec(result: Result) -> str:
    """Name what was built, e.g. "timm:resnet50.a1_in1k"; nothing where that is not known."""
    return str(about_model(result).get("spec") or "")


def is_factory(spec: str) -> bool:
    """Tell whether a function of the user's builds the model, "package.module:factory"."""
    return ":" in spec and not spec.startswith("timm:")


def architecture(result: Result) -> str:
    """Name what was built without timm's tag of published weights, e.g. "timm:resnet50"."""
    name = spec(result)
    return name if is_factory(name) else name.partition(".")[0]


def _weights(result: Result) -> str:
    known = about_model(result)
    if known.get("sha256"):
        return str(known["sha256"])
    return json.dumps({key: value for key, value in known.items() if key not in _NOT_WEIGHTS}, sort_keys=True)
