"""The radius of a threat: one number, or one per image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Eps = float | Sequence[float]


def check_eps(name: str, eps: Any) -> float | tuple[float, ...]:
    """A number, sequence or tensor as a float or a tuple of floats.

    Raises:
        ValueError: if one of them is negative, infinite or NaN.
    """
    if isinstance(eps, Tensor):
        eps = eps.tolist()
    single = isinstance(eps, str) or not isinstance(eps, Sequence)
    numbers = tuple(float(number) for number in ([eps] if single else eps))
    for number in numbers:
        if not 0 <= number < torch.inf:
            raise ValueError(f"{name}: eps must be a finite number >= 0 in units of [0, 1] pixels, got {number}")
    return numbers[0] if single else numbers


def radii_of(name: str, eps: Eps, images: Tensor) -> Tensor | float:
    """The radius as a number, or as float64 (N, 1, 1, 1) on the images' device.

    Raises:
        ValueError: if there is one radius per image, but for another number of images.
    """
    if not isinstance(eps, Sequence):
        return eps
    if len(eps) != len(images):
        raise ValueError(
            f"{name} has eps for {len(eps)} images, but {len(images)} images were given: "
            "pass one number, or one eps per image"
        )
    return torch.tensor(eps, dtype=torch.float64, device=images.device).reshape(-1, 1, 1, 1)


def select_eps(eps: Eps, index: Tensor) -> Eps:
    """The radius for some of the images, chosen by a boolean mask or indices (N,)."""
    if not isinstance(eps, Sequence):
        return eps
    return tuple(torch.tensor(eps, dtype=torch.float64)[index.cpu()].tolist())
