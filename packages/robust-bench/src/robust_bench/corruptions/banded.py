"""Products with banded matrices along rows and columns, and Gaussian smoothing by them.

On a CPU a product with the whole matrix is faster than a convolution of single channels; a narrow band is cut into
blocks of rows, so that most of the zeros are left out. Every image is a product of its own, so that it does not matter
which others are in the batch.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

_ROWS = 56  # rows of a block

Border = Callable[[Tensor, int], Tensor]
"""Where positions outside 0..length-1 are read: (positions, length) -> positions."""


def reflect(positions: Tensor, length: int) -> Tensor:
    """Mirror positions at the edges of the first and last pixel, as often as needed: c b a | a b c | c b a."""
    positions = positions % (2 * length)
    return torch.minimum(positions, 2 * length - 1 - positions)


def replicate(positions: Tensor, length: int) -> Tensor:
    """Read the first or last pixel: a a a | a b c | c c c."""
    return positions.clamp(0, length - 1)


def gaussian(images: Tensor, sigmas: tuple[float, float], truncate: float, border: Border) -> Tensor:
    """Smooth images (..., H, W) with a normalised Gaussian of radius int(truncate sigma + 0.5) per axis.

    Args:
        images: float32 or float64.
        sigmas: in pixels, down the columns and along the rows; 0 leaves an axis as it is.
        truncate: radius in multiples of sigma.
        border: `reflect` or `replicate`.
    """
    height, width = images.shape[-2:]
    out = images.reshape(-1, height, width)
    for axis, (length, sigma) in enumerate(zip((height, width), sigmas, strict=True)):
        if sigma > 0:
            out = product(_band(length, sigma, truncate, border, out.dtype, out.device), out, axis)
    return out.view(images.shape)


Block = tuple[slice, slice, Tensor]
"""Rows of a matrix, the columns where they are not zero, and what stands there."""


def product(band: tuple[Block, ...], images: Tensor, axis: int) -> Tensor:
    """Multiply images (N, H, W) with a matrix of blocks from the left (axis 0) or, transposed, from the right (axis 1).

    The axis gets as many rows or columns as the matrix has rows.
    """
    count, size = len(images), list(images.shape)
    size[1 + axis] = band[-1][0].stop
    out = images.new_empty(size)
    for rows, columns, weights in band:
        if axis == 0:
            out[:, rows] = torch.bmm(weights.expand(count, -1, -1), images[:, columns])
        else:
            out[:, :, rows] = torch.bmm(images[:, :, columns], weights.T.expand(count, -1, -1))
    return out


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must serve callers that want gradients as well
def _band(
    length: int, sigma: float, truncate: float, border: Border, dtype: torch.dtype, device: torch.device
) -> tuple[Block, ...]:
    radius = int(truncate * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps.double() / sigma) ** 2)
    places = border(torch.arange(length)[:, None] + steps, length)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    matrix.scatter_add_(1, places, (kernel / kernel.sum()).expand(length, -1))
    matrix = matrix.to(dtype).to(device)
    size = _ROWS if 2 * radius + _ROWS < length else length
    blocks = []
    for start in range(0, length, size):
        rows = slice(start, min(start + size, length))
        columns = slice(max(0, start - radius), min(length, rows.stop + radius))
        blocks.append((rows, columns, matrix[rows, columns]))
    return tuple(blocks)
