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
    corners = draws.field("corners", (count, 3, 2)).to(torch.float32).to(images.dtype)
    grid = _affine_grid(corners, height, width)
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

    With -1 and 1 at the centres of the first and last pixel, as `grid_sample(align_corners=True)` reads it.
    """
    centre = corners.new_tensor([width // 2, height // 2])
    quarter = float(min(height, width) // 3)
    fixed = centre + quarter * corners.new_tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    first, second, origin = (fixed.to(torch.float32) + corners.to(torch.float32)).to(corners.dtype).unbind(1)
    u, v = first - origin, second - origin
    # A point is origin + a u + b v; the same a and b lead from the third fixed point to where it comes from.
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    inverse = torch.stack([v[:, 1], -v[:, 0], -u[:, 1], u[:, 0]], dim=1).view(-1, 2, 2) / area[:, None, None]
    back = (fixed[:2] - fixed[2]).T @ inverse  # (N, 2, 2)
    scale = 2.0 / corners.new_tensor([width - 1, height - 1])
    back = back * scale[:, None]
    rest = fixed[2] * scale - 1.0 - (back @ origin[:, :, None])[:, :, 0]
    columns = torch.arange(width, dtype=corners.dtype, device=corners.device)[:, None]
    rows = torch.arange(height, dtype=corners.dtype, device=corners.device)[:, None, None]
    return (columns * back[:, None, None, :, 0] + rows * back[:, None, None, :, 1]).add_(rest[:, None, None])


def _shift(images: Tensor, shifts: Tensor, factor: float, sigmas: tuple[float, float]) -> Tensor:
    height, width = images.shape[2:]
    smooth = gaussian(shifts.to(images), sigmas, _TRUNCATE, reflect)
    grid = images.new_empty(len(images), height, width, 2)
    for axis, length in enumerate((width, height)):
        # With -1 and 1 at the outer edges of the first and last pixel, as `align_corners=False` reads it.
        own = torch.arange(1, 2 * length, 2, dtype=images.dtype, device=images.device).div_(length).sub_(1.0)
        torch.add(own if axis == 0 else own[:, None], smooth[:, axis], alpha=2.0 * factor / length, out=grid[..., axis])
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
