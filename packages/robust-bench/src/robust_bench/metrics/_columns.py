"""Columns of per-image numbers, truths and labels, from tensors, arrays or sequences, checked before use."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

Values: TypeAlias = Tensor | npt.ArrayLike
"""One value per image: a tensor on any device, an array, or a sequence."""

Labels: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[Hashable]
"""One class per image: names, or integer indices."""


def numbers(name: str, values: Values) -> npt.NDArray[np.float64]:
    """Give (N,) numbers, none of them NaN."""
    return _real(name, _array(name, values, dimensions=1))


def confidences(name: str, values: Values) -> npt.NDArray[np.float64]:
    """Give (N,) numbers in [0, 1]."""
    found = numbers(name, values)
    low, high = float(found.min()), float(found.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{name} must lie in [0, 1], got [{low:.4g}, {high:.4g}]: give the largest softmax probability of every "
            "image as a fraction, not a logit and not per cent"
        )
    return found


def matrix(name: str, values: Values) -> npt.NDArray[np.float64]:
    """Give (N, K) finite numbers."""
    found = _real(name, _array(name, values, dimensions=2))
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got infinite values: check the model's weights and its precision")
    return found


def truths(name: str, values: Values) -> npt.NDArray[np.bool_]:
    """Give (N,) truths, from booleans or from the numbers 0 and 1."""
    found = _array(name, values, dimensions=1)
    advice = "give one True or False per image, e.g. predictions == labels"
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be boolean, got {_kind(found)}: {advice}")
    strange = found[(found != 0) & (found != 1)]  # NaN is among them
    if len(strange):
        raise ValueError(f"{name} must be boolean (or 0 and 1), got {strange[0]:.4g}: {advice}")
    right: npt.NDArray[np.bool_] = np.equal(found, 1)
    return right


def labels(name: str, values: Labels) -> list[Hashable]:
    """Give N class names or indices as plain Python values."""
    if isinstance(values, str | Mapping) or not hasattr(values, "__getitem__"):
        raise TypeError(f"{name} must be a sequence of class names or indices, got {type(values).__name__}")
    listed = values.detach().cpu() if isinstance(values, Tensor) else values
    if isinstance(listed, Tensor | np.ndarray) and listed.ndim != 1:
        raise ValueError(f"{name} must have the shape (N,), one class per image, got {tuple(listed.shape)}")
    found: list[Hashable] = listed.tolist() if isinstance(listed, Tensor | np.ndarray) else list(listed)
    found = [value.item() if isinstance(value, Tensor) else value for value in found]
    if not found:
        raise ValueError(f"{name} is empty: give at least one image")
    for position, value in enumerate(found):
        if value != value:
            raise ValueError(f"{name} holds NaN at position {position}: give None or 'na' where there is no answer")
    return found


def check_lengths(**columns: Sequence[Any] | npt.NDArray[Any]) -> None:
    """Refuse columns of different lengths.

    Raises:
        ValueError: with every length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{_listed(lengths)} must have one entry per image each, got "
            + ", ".join(f"{count} of {name}" for name, count in lengths.items())
        )


def check_confidence(confidence: float) -> None:
    """Refuse a confidence level outside (0, 1).

    Raises:
        ValueError: with the level.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, e.g. 0.95, got {confidence}")


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _kind(found: npt.NDArray[Any]) -> str:
    if found.dtype.kind != "O":
        return str(found.dtype) if found.dtype.kind not in "US" else "text"
    return next((type(value).__name__ for value in found.flat if not isinstance(value, bool)), "objects")


def _array(name: str, values: Values, *, dimensions: int) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        here = values.detach().cpu()
        # NumPy knows no bfloat16, and float64 holds every value of the smaller types.
        values = (here.double() if here.is_floating_point() else here).numpy()
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be one flat sequence of values, got rows of different lengths") from error
    if found.dtype.kind == "O" and found.size and all(isinstance(value, bool | np.bool_) for value in found.flat):
        found = found.astype(np.bool_)  # a column of a table with mixed types
    if found.ndim == 0 and found.dtype.kind in "OUS":
        raise TypeError(f"{name} must be a tensor, array or sequence, got {type(values).__name__}")
    if found.ndim != dimensions:
        shape = "(N,), one value per image" if dimensions == 1 else "(N, K), one row per image"
        raise ValueError(f"{name} must have the shape {shape}, got {found.shape}")
    if found.size == 0:
        raise ValueError(f"{name} is empty: give at least one image")
    return found


def _real(name: str, found: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if found.dtype == np.bool_:
        raise TypeError(f"{name} must be numbers, got bool: were two arguments swapped?")
    if found.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {_kind(found)}")
    if np.isnan(found).any():
        raise ValueError(f"{name} holds NaN, in {int(np.isnan(found).sum())} of {found.size} values")
    return found.astype(np.float64)
