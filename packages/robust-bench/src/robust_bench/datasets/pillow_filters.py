"""Where Pillow's resize reads along one axis, and with which integer weights."""

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

BITS = 22
"""Weights are integers in units of 2^-22, as Pillow keeps them for 8-bit images."""


def _box(distance: Tensor) -> Tensor:
    return ((distance > -0.5) & (distance <= 0.5)).double()


def _bilinear(distance: Tensor) -> Tensor:
    return (1.0 - distance.abs()).clamp(min=0.0)


def _hamming(distance: Tensor) -> Tensor:
    constant, wave = torch.tensor([0.54, 0.46]).tolist()  # Pillow has these two in float32
    window = constant + wave * torch.cos(math.pi * distance)
    return torch.where(distance.abs() < 1.0, torch.sinc(distance) * window, 0.0)


def _cubic(distance: Tensor) -> Tensor:
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0)
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def _lanczos(distance: Tensor) -> Tensor:
    return torch.where(distance.abs() < 3.0, torch.sinc(distance) * torch.sinc(distance / 3.0), 0.0)


FILTERS: Mapping[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "cubic": (_cubic, 2.0),  # Keys' cubic with a = -0.5
    "lanczos": (_lanczos, 3.0),
}
"""Filters as functions of a distance in pixels of the coarser image, each with how far it reaches."""


def taps(name: str, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Places (size, taps) in 0..length-1 and shares (size, taps) of each: float64 that sum to 1 along the taps.

    The filter is as wide as in the coarser image, so it averages where the image shrinks; at an edge it is cut off.
    """
    function, reach = FILTERS[name]
    ratio = length / size
    widened = max(ratio, 1.0)
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * ratio
    first = (centres - reach * widened + 0.5).long().clamp(min=0)
    stop = (centres + reach * widened + 0.5).long().clamp(max=length)
    places = first[:, None] + torch.arange(math.ceil(reach * widened) * 2 + 1)
    shares = function((places - centres[:, None] + 0.5) / widened)
    shares = shares.where(places < stop[:, None], 0.0)
    return places.clamp(max=length - 1), shares / shares.sum(1, keepdim=True)


def integers(shares: Tensor) -> Tensor:
    """Weights in units of 2^-22, halves away from zero."""
    return torch.copysign((shares.abs() * 2.0**BITS + 0.5).floor(), shares)


def nearest(length: int, size: int) -> Tensor:
    """Places (size,) that NEAREST takes.

    Pillow adds up the step in float64, and where a place falls on the border of two pixels the error of that sum
    decides: so the sum is repeated here.
    """
    step = length / size
    places = itertools.accumulate(itertools.repeat(step, size - 1), initial=0.5 * step)
    return torch.tensor([min(int(place), length - 1) for place in places])
