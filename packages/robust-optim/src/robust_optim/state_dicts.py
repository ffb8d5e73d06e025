"""What state dicts must share to be mixed, and in which precision they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""What `model.state_dict()` gives: tensors by name."""


def check_state(state: State, name: str) -> None:
    """Refuse what is not a state dict.

    Raises:
        TypeError: if it is no mapping, or holds anything but tensors; `name` says in the message whose it is.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{name} must be a state dict, such as model.state_dict(), got {type(state).__name__}")
    for entry, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must hold tensors alone, but its entry {entry!r} is of type {type(value).__name__}: give the "
                "state dict of the model, not the checkpoint around it"
            )


def is_mixable(tensor: Tensor) -> bool:
    """Whether a mean of such entries makes sense: not for integers and booleans, such as counters and indices."""
    return tensor.is_floating_point() or tensor.is_complex()


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which entries of `dtype` are mixed: at least float32, or complex64."""
    if dtype.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype


def differences(expected: State, given: State, attributes: tuple[str, ...] = ("shape", "dtype", "device")) -> str:
    """Say where `given` departs from `expected` in names or attributes of entries; the empty string if nowhere."""
    found = []
    if missing := [name for name in expected if name not in given]:
        found.append(f"missing {_some(missing)}")
    if unexpected := [name for name in given if name not in expected]:
        found.append(f"unexpected {_some(unexpected)}")
    found += [
        f"{name!r} has {attribute} {_show(theirs)} instead of {_show(ours)}"
        for name in expected
        if name in given
        for attribute in attributes
        if (theirs := getattr(given[name], attribute)) != (ours := getattr(expected[name], attribute))
    ]
    return "; ".join(found[:4] + (["..."] if len(found) > 4 else []))


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:4]))
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _show(value: object) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)
