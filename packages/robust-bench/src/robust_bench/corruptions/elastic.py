"""Elastic transforms: the image is stretched as if it were printed on rubber."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from robust_bench.corruptions.banded import gaussian, reflect
from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import fine_uniform_field, uniform_field

_TRUNCATE = 3.0  # of the Gaussian, in multiples of sigma


def sample_elastic(key: Key, shape: Shape, constant: tuple[float, float, float]) -> dict[str, Tensor]:
    """Draw how far three corners move, (N, 3, 2) in pixels (x, y), and what `sample_shifts` draws."""
    jitter = constant[2]
    corners = fine_uniform_field(key("corners"), (3, 2)).mul_(2.0).sub_(1.0).mul_(jitter)
    return {"corners": corners, **sample_shifts(key, shape, constant)}


def sample_shifts(key: Key, shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Draw numbers in (-1, 1) for every pixel, (N, 2, H, W), that become its shift to the right and downwards."""
    return {"shifts": uniform_field(key("shifts"), (2, *shape[1:])).mul_(2.0).sub_(1.0)}


def elastic_transform(images: Tensor, constant: tuple[float, float, float], draws: Draws) -> Tensor:
    """Move three corners of the image's middle, then every pixel by smoothed noise.

    Simard, Steinkraus & Platt, "Best practices for convolutional neural networks applied to visual document analysis",
    ICDAR 2003, after an affine transform. Bilinear with exact weights in both steps; the image is mirrored at its
    borders, about the outermost pixels' centres in the first step and about their edges in the second.

    Args:
        images: (N, C, H, W) floats.
        constant: factor alpha of the smoothed noise, its sigma, and the largest jitter of the corners, in pixels.
        draws: "corners" (N, 3, 2) in pixels and "shifts" (N, 2, H, W) in [-1, 1].
    """
    alpha, sigma, _ = constant
    count, _, height, width = images.shape
    grid = _affine_grid(draws.field("corners", (count, 3, 2)).to(images), height, width)
    moved = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    if alpha == 0:
        return moved
    return _shift(moved, draws.field("shifts", (count, 2, height, width)), alpha, (sigma, sigma))


def elastic_transform_without_affine(images: Tensor, alpha: float, draws: Draws) -> Tensor:
    """Move every pixel by smoothed noise, as the package `imagecorruptions` does.

    The noise lies within 0.005 H, and its sigma is 0.01 of the height and width; `alpha` multiplies the result.
    """
    count, _, height, width = images.shape
    shifts = draws.field("shifts", (count, 2, height, width))
    return _shift(images, shifts, alpha * 0.005 * height, (0.01 * height, 0.01 * width))


def _affine_grid(corners: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, (N, H, W, 2), when three points move by `corners` (N, 3, 2).

    The points lie at the right bottom, right top and left top of a square in the image's middle.
    """
    quarter = min(height, width) // 3
    left, top, side = width // 2 - quarter, height // 2 - quarter, 2 * quarter
    bottom_x, bottom_y = (corners[:, 0] - corners[:, 2] + side).unbind(1)  # from the left top to the right bottom
    right_x, right_y = (corners[:, 1] - corners[:, 2]).unbind(1)  # from the left top to the right top
    right_x = right_x + side
    x = _along(width, corners) - (corners[:, 2, 0] + left)[:, None]
    y = _along(height, corners) - (corners[:, 2, 1] + top)[:, None]
    # A place is the left top + a times the first + b times the second; it comes from there with the fixed ones.
    scale = side / (bottom_x * right_y - bottom_y * right_x)
    grid = corners.new_empty(len(corners), height, width, 2)
    for axis, (start, length, by_x, by_y) in enumerate(
        ((left, width, right_y - bottom_y, bottom_x - right_x), (top, height, right_y, -right_x))
    ):
        # With -1 and 1 at the centres of the first and last pixel, as `align_corners=True` reads it.
        unit = 2.0 / (length - 1)
        across = x * (scale * by_x * unit)[:, None] + (start * unit - 1.0)
        torch.add(across[:, None], (y * (scale * by_y * unit)[:, None])[:, :, None], out=grid[..., axis])
    return grid


def _along(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, dtype=like.dtype, device=like.device)


def _shift(images: Tensor, shifts: Tensor, factor: float, sigmas: tuple[float, float]) -> Tensor:
    height, width = images.shape[2:]
    smooth = gaussian(shifts.to(images), sigmas, _TRUNCATE, reflect)
    grid = images.new_empty(len(images), height, width, 2)
    for axis, length in enumerate((width, height)):
        # With -1 and 1 at the outer edges of the first and last pixel, as `align_corners=False` reads it.
        own = _along(length, images).mul_(2.0).add_(1.0).div_(length).sub_(1.0)
        torch.add(own if axis == 0 else own[:, None], smooth[:, axis], alpha=2.0 * factor / length, out=grid[..., axis])
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
