"""Nested settings under dotted names, as options write them."""

from collections.abc import Iterator, Mapping
from typing import Any


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Give every setting with its dotted name.

    Examples:
        >>> dict(flat({"seed": 0, "attack": {"steps": 20}}))
        {'seed': 0, 'attack.steps': 20}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
