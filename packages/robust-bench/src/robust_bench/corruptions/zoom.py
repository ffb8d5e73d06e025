"""Zoom blur: the mean of an image and its enlargements, as matrix products.

Linear resizing is a matrix along each axis. All factors are done at once: a product along the rows makes the rows of
every enlargement, and a second one down the columns makes the columns and adds the enlargements up. Both matrices are
cut into blocks, because a block of the result needs a part of the image only.
"""

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robust_bench.corruptions.draws import Draws

_SIDE = 56  # rows and columns of a block

Block = tuple[slice, slice, Tensor]
"""Where a block lies in the result, what part of the image it needs, and the matrix that leads there."""


def zoom_blur(images: Tensor, constant: tuple[float, float, int], _draws: Draws) -> Tensor:
    """Take the mean of the image, once more the image, and its enlargements by a growing factor.

    Every enlargement is cut at its centre to the image's size. Height and width are treated separately. (The package
    `imagecorruptions` cuts at the top left instead, which comes to the same: with factors up to 1.3 the enlargement
    is at most one pixel larger than the image.)

    Args:
        images: (N, C, H, W) floats.
        constant: the last factor (for the reader; it follows from the others), the step between factors and their
            number; the first factor is 1.
    """
    _, step, count = constant
    height, width = images.shape[2:]
    planes = images.reshape(-1, height, width)
    share = 1.0 / (count + 1)
    out = planes * (2.0 * share)  # the image and its enlargement by 1
    down = _contractions(height, step, count, share, images.dtype, images.device)
    for columns, needed, matrix in _expansions(width, step, count, images.dtype, images.device):
        wide = torch.bmm(planes[:, :, needed], matrix.expand(len(planes), -1, -1))
        wide = wide.view(len(planes), height, count - 1, -1)
        for rows, sources, weights in down:
            layers = wide[:, sources].flatten(1, 2)  # every source row in every enlargement
            out[:, rows, columns] += torch.bmm(weights.expand(len(planes), -1, -1), layers)
    return out.view(images.shape)


def enlarge(images: Tensor, factor: float) -> Tensor:
    """Enlarge the centre of images (N, C, H, W) linearly, so that the first and last pixels stay the outermost ones.

    Of a side of L pixels the middle ceil(L / factor) become round(ceil(L / factor) factor), L or a few more.

    Args:
        images: float32 or float64, any number of channels and any range.
        factor: 1 or more, and at most half of either side.
    """
    (top, rows), (left, columns) = (
        _enlargement(side, factor, images.dtype, images.device) for side in images.shape[2:]
    )
    middle = images[:, :, top : top + rows.shape[1], left : left + columns.shape[1]]
    return rows @ middle @ columns.T


def factors(step: float, count: int) -> tuple[float, ...]:
    """The factors 1, 1 + step .. as `numpy.arange` rounds them: whether 224 / 1.12 exceeds 200 hangs on that."""
    step = (1.0 + step) - 1.0
    return tuple(1.0 + index * step for index in range(count))


def _reads(length: int, factor: float) -> tuple[Tensor, Tensor]:
    """Where the enlarged positions lie along a side: the pixel before each, int64, and the share of the next one."""
    middle = math.ceil(length / factor)
    size = round(middle * factor)
    place = torch.arange(size, dtype=torch.float64) * ((middle - 1) / (size - 1))
    before = place.floor().clamp_(max=middle - 2)
    return before.long() + (length - middle) // 2, place - before


def _interpolation(before: Tensor, share: Tensor, length: int) -> Tensor:
    """Write linear interpolation as a matrix, float64 (..., positions, length)."""
    matrix = torch.zeros(*before.shape, length, dtype=torch.float64)
    matrix.scatter_(-1, before[..., None], 1.0 - share[..., None])
    return matrix.scatter_(-1, before[..., None] + 1, share[..., None])


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve callers that want gradients as well
def _enlargement(length: int, factor: float, dtype: torch.dtype, device: torch.device) -> tuple[int, Tensor]:
    """The first pixel that `enlarge` needs along a side, and the matrix that it applies from there."""
    before, share = _reads(length, factor)
    start, middle = int(before[0]), math.ceil(length / factor)
    return start, _interpolation(before - start, share, middle).to(dtype).to(device)


def _blocks(length: int, step: float, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Cut a side into blocks: what a block needs, and its matrices in all enlargements but the first.

    The enlargements are cut at their centre; the matrices are float64 (count - 1, made, needed).
    """
    cut = []
    for factor in factors(step, count)[1:]:
        before, share = _reads(length, factor)
        kept = slice((len(before) - length) // 2, (len(before) - length) // 2 + length)
        cut.append((before[kept], share[kept]))
    befores, shares = (torch.stack(parts) for parts in zip(*cut, strict=True))
    for start in range(0, length, _SIDE):
        made = slice(start, min(start + _SIDE, length))
        before, share = befores[:, made], shares[:, made]
        first, stop = int(before.min()), int(before.max()) + 2
        yield made, slice(first, stop), _interpolation(before - first, share, stop - first)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _expansions(length: int, step: float, count: int, dtype: torch.dtype, device: torch.device) -> tuple[Block, ...]:
    """Blocks that lead from the columns of an image to those of all enlargements."""
    return tuple(
        (made, needed, part.flatten(0, 1).T.contiguous().to(dtype).to(device))
        for made, needed, part in _blocks(length, step, count)
    )


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _contractions(
    length: int, step: float, count: int, share: float, dtype: torch.dtype, device: torch.device
) -> tuple[Block, ...]:
    """Blocks that lead from the rows of the image, in all enlargements, to the sum over the enlargements."""
    return tuple(
        (made, needed, part.mul_(share).permute(1, 2, 0).flatten(1).contiguous().to(dtype).to(device))
        for made, needed, part in _blocks(length, step, count)
    )
