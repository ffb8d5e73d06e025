"""Typed settings from plain values (YAML, command line) and back, with errors that name the key and what is valid."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union

from robust_train.errors import SetupError


class RecipeError(SetupError):
    """A recipe or an override that makes no sense; the message names the key, what was given and what is valid."""


def build(kind: Any, value: Any, where: str = "") -> Any:
    """Make a value of the type `kind` from plain data.

    Numbers may be written as text where a float is wanted, also as a fraction: PyYAML reads `1e-4` as text, and
    `8/255` is how everybody writes an eps. A union of dataclasses is chosen by the key `name`.

    Args:
        kind: a dataclass, a union of them, or the type of one of their fields.
        value: mappings, lists, numbers, text, booleans, None.
        where: the dotted key, for messages.

    Raises:
        RecipeError: for unknown and missing keys, wrong types, and values that the dataclass refuses.
    """
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in choices:
            return None
        rest = [choice for choice in choices if choice is not types.NoneType]
        if len(rest) == 1:
            return build(rest[0], value, where)
        return build(_variant(rest, value, where), value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _settings(kind, value, where)
    if origin is Literal:
        if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
            raise RecipeError(f"{where} must be one of {_listed(choices)}, got {value!r}{_nearest(value, choices)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{where} must be a list of numbers, got {value!r}")
        if choices[-1] is not Ellipsis and len(value) != len(choices):
            raise RecipeError(f"{where} must have {len(choices)} numbers, got {len(value)}")
        return tuple(build(choices[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    return _plain(kind, value, where)


def plain(settings: Any) -> Any:
    """Turn settings into mappings, lists and plain values: the inverse of `build`."""
    if dataclasses.is_dataclass(settings):
        return {field.name: plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    return [plain(item) for item in settings] if isinstance(settings, tuple) else settings


def flatten(values: Any, where: str = "") -> dict[str, Any]:
    """Dotted keys and values of nested mappings, in order."""
    if not isinstance(values, Mapping):
        return {where: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in flatten(inner, f"{where}.{name}" if where else str(name)).items()
    }


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the values that differ, with the value here and there (None where there is none)."""
    one, other = flatten(ours), flatten(theirs)
    names = dict.fromkeys([*one, *other])
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def variants(kind: Any) -> list[type]:
    """The dataclasses that a field of the type `kind` may hold; none for a plain field."""
    parts = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [part for part in parts if dataclasses.is_dataclass(part) and isinstance(part, type)]


def hints(kind: type) -> dict[str, Any]:
    """The fields of a dataclass with their types."""
    found = typing.get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def name_of(kind: type) -> str | None:
    """The value of `name` that chooses the dataclass in a union, or None where the name is free."""
    choices = typing.get_args(hints(kind).get("name"))
    return choices[0] if choices else None


def _variant(rest: Iterable[Any], value: Any, where: str) -> Any:
    known = {name_of(choice): choice for choice in rest}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a section with a name, one of {_listed(known)}; got {value!r}")
    name = value.get("name")
    if name not in known:
        raise RecipeError(f"{where}.name must be one of {_listed(known)}, got {name!r}{_nearest(name, known)}")
    return known[name]


def _settings(kind: type, value: Any, where: str) -> Any:
    title = where or "the recipe"
    if not isinstance(value, Mapping):
        raise RecipeError(f"{title} must be a section of keys and values, got {value!r}")
    fields = hints(kind)
    own = name_of(kind)
    title = f"{title} ({own})" if own else title
    if unknown := [key for key in value if key not in fields]:
        near = _nearest(unknown[0], fields)
        raise RecipeError(f"{title} has no key {unknown[0]!r}{near}; its keys are {', '.join(fields)}")
    if missing := [key for key in fields if key not in value]:
        raise RecipeError(f"{title} lacks {', '.join(missing)}: a recipe states every setting")
    dotted = f"{where}." if where else ""
    arguments = {key: build(fields[key], value[key], dotted + key) for key in fields}
    try:
        return kind(**arguments)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{dotted}{error}") from error


def _plain(kind: type, value: Any, where: str) -> Any:
    """A number, a text or a switch; never one for the other."""
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = _number(value)
        if number is not None:
            return number
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise RecipeError(f"{where} must be {words}, got {value!r} ({type(value).__name__})")


def _number(value: float | str) -> float | None:
    """A finite number, also from `1e-4` and `8/255`; None where it is none."""
    parts = str(value).split("/")
    try:
        numbers = [float(part) for part in parts]
        number = numbers[0] if len(parts) == 1 else numbers[0] / numbers[1]
    except (ValueError, ZeroDivisionError):
        return None
    return number if len(parts) <= 2 and math.isfinite(number) else None


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def _nearest(name: Any, known: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(name), [str(one) for one in known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
