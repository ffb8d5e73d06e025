"""The settings of conditions as JSON values."""

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from robust_bench.conditions.condition import Condition
from robust_bench.fingerprint import function_name, without_addresses
from robust_bench.result import plain


def identity(condition: Condition) -> dict[str, Any]:
    """Everything by which a resumed run recognises a condition: its settings, and where a function of its comes from.

    Raises:
        TypeError: if it holds a lambda, or a function inside another one.
    """
    attack: Any = getattr(condition, "attack", None)
    parts = [attack]
    if dataclasses.is_dataclass(attack):
        parts += [getattr(attack, entry.name) for entry in dataclasses.fields(attack)]
    functions = [part for part in parts if isinstance(part, types.FunctionType)]
    names = [function_name(function, f"a function of {condition.label}") for function in functions]
    return condition.settings | ({"functions": names} if names else {})


def check_one_eps(eps: object) -> None:
    """Refuse an eps of several numbers.

    Raises:
        ValueError: if it is one.
    """
    if isinstance(eps, Sequence | Tensor):
        raise ValueError(f"an evaluation needs one eps for all images, got {len(eps)}: give one condition per eps")


def attack_fields(attack: Any) -> dict[str, Any]:
    """Give the fields of an attack but its threat, as JSON values."""
    if not dataclasses.is_dataclass(attack):
        return {}
    names = (entry.name for entry in dataclasses.fields(attack) if entry.name != "threat")
    return {name: describe(getattr(attack, name)) for name in names}


def describe(value: object) -> Any:
    """Turn a setting into JSON values: functions by name, dataclasses as mappings, anything else as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {entry.name: describe(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
        return {"class": type(value).__name__, **inner}
    if isinstance(value, functools.partial):
        arguments = [describe(value.args), describe(value.keywords)]
        return {"partial": describe(value.func), "arguments": arguments}
    if callable(value):
        return getattr(value, "__name__", None) or without_addresses(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    try:
        return plain(value, "setting")
    except (TypeError, ValueError):
        return without_addresses(value)
