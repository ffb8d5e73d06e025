"""Where OpenCV's resize reads along one axis, and with which integer weights."""

import math

import torch
from torch import Tensor

COARSE_BITS = 11
"""Weights of bilinear, lanczos, and area as it enlarges, are integers in units of 2^-11, as OpenCV keeps them."""

FINE = ("cubic", "mean")
"""What OpenCV computes in floats: cubic by Intel's IPP, which its wheels for x86 hold, and area as it shrinks."""

FINE_BITS = 22
"""Their weights are integers in units of 2^-22 here: sums over both axes stay below 2^53, so they are exact."""


def taps(name: str, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Places (size, taps) in 0..length-1 and shares (size, taps) of each, float64.

    Filters are no wider where the image shrinks; outside the image the first or last pixel is read.

    Args:
        name: "bilinear", "cubic" (a = -0.75), "lanczos" (4 lobes), "area" as it enlarges, which mixes two pixels only
            where a new one lies across both, or "mean" for area as it shrinks.
        length: pixels there are.
        size: pixels there shall be.
    """
    if name == "mean":
        return _covered(length, size)
    ratio = 1.0 / (size / length)
    numbers = torch.arange(size, dtype=torch.float64)
    if name == "area":
        left = (numbers * ratio).floor()
        beyond = ((numbers + 1.0) - (left + 1.0) * (size / length)).float()
        beyond = torch.where(beyond <= 0.0, 0.0, beyond - beyond.floor())
    else:
        places = (numbers + 0.5) * ratio - 0.5
        places = places if name in FINE else places.float()  # OpenCV's precision, which decides some weights
        left = places.floor()
        beyond = places - left
    reach = {"cubic": 2, "lanczos": 4}.get(name, 1)
    steps = torch.arange(1 - reach, 1 + reach)
    shares = _kernel(name, beyond[:, None].double() - steps)
    return (left.long()[:, None] + steps).clamp(0, length - 1), shares / shares.sum(1, keepdim=True)


def integers(name: str, shares: Tensor) -> Tensor:
    """Weights as integers in float64, halves to even."""
    if name in FINE:
        return (shares * 2.0**FINE_BITS).round()
    return (shares.float() * 2.0**COARSE_BITS).round().double()


def nearest(length: int, size: int) -> Tensor:
    """Places (size,) that INTER_NEAREST takes: the step times the number, rounded down."""
    return (torch.arange(size, dtype=torch.float64) * (1.0 / (size / length))).floor().long().clamp(max=length - 1)


def _kernel(name: str, distance: Tensor) -> Tensor:
    x = distance.abs()
    if name == "cubic":
        near = (1.25 * x - 2.25) * x * x + 1.0
        far = -0.75 * (((x - 5.0) * x + 8.0) * x - 4.0)
        return torch.where(x <= 1.0, near, far)
    if name == "lanczos":
        return torch.sinc(x) * torch.sinc(x / 4.0)
    return 1.0 - x


def _covered(length: int, size: int) -> tuple[Tensor, Tensor]:
    """How much of every new pixel the old ones cover; less than a thousandth of an old one does not count."""
    ratio = 1.0 / (size / length)
    start = (torch.arange(size, dtype=torch.float64) * ratio)[:, None]
    places = start.floor().long() + torch.arange(math.ceil(ratio) + 1)
    covered = torch.minimum(start + ratio, places + 1.0) - torch.maximum(start, places.double())
    covered = covered.where((covered > 1e-3) & (places < length), 0.0)
    return places.clamp(max=length - 1), covered / (length - start).clamp(max=ratio)
