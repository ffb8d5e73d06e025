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
    suite: Any = getattr(condition, "suite", None)
    attacks = [getattr(condition, "attack", None), *(() if suite is None else suite.stages.values())]
    sources = [source for attack in attacks for source in _sources(attack, condition.label)]
    return condition.settings | ({"functions": sources} if sources else {})


def _sources(attack: Any, label: str) -> list[Any]:
    """Where an attack comes from: its class or function, and those of its fields.

    Raises:
        TypeError: if something could not be recognised again: a lambda, a function inside another one, or an object
            that is no dataclass and says nothing of itself in a text `fingerprint`.
    """
    if attack is None:
        return []
    own = getattr(attack, "fingerprint", None)
    if isinstance(own, str):
        return [own]
    if isinstance(attack, functools.partial):
        return [*_sources(attack.func, label), describe(attack.args), describe(attack.keywords)]
    if dataclasses.is_dataclass(attack) and not isinstance(attack, type):
        values = [getattr(attack, entry.name) for entry in dataclasses.fields(attack)]
        functions = [value for value in values if isinstance(value, types.FunctionType)]
        return [type(attack).__qualname__, *(function_name(each, f"a function of {label}") for each in functions)]
    return [function_name(attack, f"a function of {label}")]


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
