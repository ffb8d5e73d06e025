"""Fog: a cloud that grows by the diamond-square algorithm, laid over the image."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import uniform_field

_FIRST = 100.0  # square root of the largest random shift of a height
_COARSE = 16  # side of the grid up to which one product with a matrix does all levels

Grid = TypeVar("Grid", Tensor, NDArray[Any])


def sample_fog(key: Key, shape: Shape, _constant: tuple[float, float]) -> dict[str, Tensor]:
    """Draw a number in (-1, 1) for every height of the cloud, (N, side, side); see `side_of_cloud` and `grow`."""
    side = side_of_cloud(*shape[1:])
    return {"shifts": uniform_field(key("shifts"), (side, side)).mul_(2.0).sub_(1.0)}


def side_of_cloud(height: int, width: int) -> int:
    """Give the smallest power of two that covers an image.

    Examples:
        >>> side_of_cloud(224, 300)
        512
    """
    return 1 << (max(height, width) - 1).bit_length()


def fog(images: Tensor, constant: tuple[float, float], draws: Draws) -> Tensor:
    """Add a cloud and scale the sum by m / (m + strength), where m is the image's largest value.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        constant: strength of the fog, and how fast it gets smooth from coarse to fine; see `grow`.
        draws: "shifts" (N, side, side) in [-1, 1]; see `grow`.
    """
    strength, decay = constant
    count, _, height, width = images.shape
    side = side_of_cloud(height, width)
    cloud = grow(draws.field("shifts", (count, side, side)).to(images), decay)[:, None]
    lowest, highest = (bound(cloud, dim=(1, 2, 3), keepdim=True) for bound in (torch.amin, torch.amax))
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    share = brightest / (brightest + strength)
    thickness = share * strength / (highest - lowest).clamp_(min=torch.finfo(images.dtype).tiny)
    return torch.addcmul((cloud[..., :height, :width] - lowest).mul_(thickness), images, share)


def grow(shifts: Tensor, decay: float) -> Tensor:
    """Grow a periodic landscape by the diamond-square algorithm.

    Fournier, Fussell & Carpenter, "Computer rendering of stochastic models", CACM 1982, as the scripts of ImageNet-C
    have it. The first height is 0. Then every level halves the step of the grid: the middle of each square gets the
    mean of the four corners plus a random shift, then the middle of each edge the mean of its four neighbours plus
    one. The largest shift is 100^2 at first and falls by decay^2 per level.

    Args:
        shifts: (N, side, side) in [-1, 1], side a power of two of at least 16. They lie as in a pyramid: when n x n
            heights become 2 n x 2 n, the middles of squares take `shifts[:, n : 2 * n, n : 2 * n]`, those of
            horizontal edges `shifts[:, :n, n : 2 * n]` and those of vertical edges `shifts[:, n : 2 * n, :n]`.
        decay: more than 0.

    Returns:
        heights (N, side, side).
    """
    count, side, _ = shifts.shape
    scaled = shifts * _largest_shifts(side, decay, shifts.dtype, shifts.device)
    coarse = scaled[:, :_COARSE, :_COARSE].reshape(count, 1, _COARSE**2).double()  # not to be rounded to TensorFloat32
    heights = torch.bmm(coarse, _first_levels(shifts.device).expand(count, -1, -1))
    heights = heights.view(count, _COARSE + 1, _COARSE + 1).to(shifts.dtype)
    if shifts.device.type == "cpu":  # NumPy's small operations cost a fifth of torch's
        first, rest = heights.numpy(), scaled.numpy()
        return torch.from_numpy(_levels(first, rest, functools.partial(np.empty, dtype=first.dtype)))[:, :-1, :-1]
    return _levels(heights, scaled, heights.new_empty)[:, :-1, :-1]


def _levels(heights: Grid, shifts: Grid, empty: Callable[[tuple[int, ...]], Grid]) -> Grid:
    """Halve the step of a grid until it has the size of the scaled shifts; `empty` makes memory of their kind."""
    while heights.shape[1] <= shifts.shape[1]:
        heights = _halve_step(heights, shifts, empty)
    return heights


def _halve_step(heights: Grid, shifts: Grid, empty: Callable[[tuple[int, ...]], Grid]) -> Grid:
    """Refine (N, n + 1, n + 1) heights, where the last row and column repeat the first, to (N, 2 n + 1, 2 n + 1)."""
    count, size = len(heights), heights.shape[1] - 1
    finer = empty((count, 2 * size + 1, 2 * size + 1))
    finer[:, ::2, ::2] = heights
    pairs = heights[:, :, :-1] + heights[:, :, 1:]
    middles = empty((count, size + 1, size + 1))  # the first row and column repeat the last
    inner = middles[:, 1:, 1:]
    inner[:] = pairs[:, :-1]
    inner += pairs[:, 1:]
    inner *= 0.25
    inner += shifts[:, size : 2 * size, size : 2 * size]
    middles[:, 0, 1:] = inner[:, -1]
    middles[:, 1:, 0] = inner[:, :, -1]
    finer[:, 1::2, 1::2] = inner
    across = middles[:, :-1, 1:] + inner
    across += pairs[:, :-1]
    across *= 0.25
    across += shifts[:, :size, size : 2 * size]
    finer[:, :-1:2, 1::2] = across
    down = middles[:, 1:, :-1] + inner
    down += heights[:, :-1, :-1]
    down += heights[:, 1:, :-1]
    down *= 0.25
    down += shifts[:, size : 2 * size, :size]
    finer[:, 1::2, :-1:2] = down
    finer[:, -1, 1::2] = across[:, 0]
    finer[:, 1::2, -1] = down[:, :, 0]
    return finer


@functools.lru_cache(maxsize=4)
def _first_levels(device: torch.device) -> Tensor:
    """Give the matrix, float64 (16^2, 17^2), that leads from scaled shifts to the heights of a 16 x 16 grid.

    The heights are linear in the shifts, and up to this size a product is faster than the levels one by one.
    """
    units = torch.eye(_COARSE**2, dtype=torch.float64).view(-1, _COARSE, _COARSE)
    return _levels(units.new_zeros(len(units), 2, 2), units, units.new_empty).flatten(1).to(device)


@functools.lru_cache(maxsize=16)
def _largest_shifts(side: int, decay: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give the largest shift of every height, (side, side), where the shifts lie; the first height is not shifted."""
    largest, size, bound = torch.zeros(side, side, dtype=torch.float64), 1, _FIRST
    while size < side:
        largest[size : 2 * size, : 2 * size] = largest[:size, size : 2 * size] = bound * bound
        size, bound = 2 * size, bound / decay
    return largest.to(dtype).to(device)
