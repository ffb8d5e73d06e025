"""What the optimisers cannot work with, said before anything is changed."""

import math

import torch
from torch import nn


def check_count(value: object, name: str, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_radius(value: float, name: str) -> float:
    """Return `value`, a radius called `name`.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is negative or not finite.
    """
    try:
        finite = math.isfinite(value)
    except TypeError as error:
        raise TypeError(
            f"{name} must be a number, such as 0.05, got {value!r} of type {type(value).__name__}"
        ) from error
    if not (finite and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0 (0 is the base optimizer), got {value}")
    return value


def check_base(base: object, wrapper: str, radius: str) -> None:
    """Refuse what is not a built optimizer, or cannot be driven by one called `wrapper` with a setting `radius`.

    Raises:
        TypeError: if it is refused, showing the right call.
    """
    right = f"wrap an optimizer that is built already: {wrapper}(torch.optim.SGD(model.parameters(), lr=0.1), ...)"
    if isinstance(base, type):
        raise TypeError(f"got the class {base.__name__}; {right}")
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(f"got {type(base).__name__}; {right}")
    if hasattr(base, "perturbs"):
        raise TypeError(f"got an optimizer that is wrapped in {type(base).__name__} already; {right}")
    if isinstance(base, torch.optim.LBFGS):
        raise TypeError("LBFGS evaluates its closure as often as it likes and cannot be driven; use SGD or AdamW")
    if radius in base.defaults:
        raise TypeError(
            f"{type(base).__name__} has a setting of its own called {radius}, and the two would share one entry of the "
            "parameter groups; wrap an optimizer without one, such as SGD or AdamW"
        )


def check_parts(wrapper: str, model: object, scaler: object, clip: object, perturb: object) -> None:
    """Refuse parts of an optimizer called `wrapper` that are of another kind.

    Raises:
        TypeError: if one is.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be the torch.nn.Module that the closure runs, or None, got {type(model)}")
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler or None, got {type(scaler)}")
    if clip is not None and not callable(clip):
        raise TypeError(
            "clip must be called with the parameters, as lambda parameters: "
            f"torch.nn.utils.clip_grad_norm_(parameters, 1.0), got {clip!r}"
        )
    if perturb is not None and not callable(perturb):
        raise TypeError(f"perturb must be called with name and parameter and tell whether to move it, got {perturb!r}")
    if perturb is not None and model is None:
        raise TypeError(f"perturb needs the names of the parameters: {wrapper}(..., perturb=..., model=model)")
