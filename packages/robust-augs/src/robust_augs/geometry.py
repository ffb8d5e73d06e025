"""The operations of AugMix that move pixels: rotate, shear and translate.

Each takes images (N, C, H, W) on the scale 0..255 and one parameter per image. As in Pillow, pixel centres lie at .5, a
pixel whose source lies outside the image becomes black, and inside, neighbours beyond the edge are those at the edge
(edges are not mixed with black). On uint8 the bilinear results are truncated to whole levels, as Pillow's are; they may
differ by one level, because Pillow interpolates in double precision. Floats of the same scale stay floats.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from robust_augs._levels import truncate

# The positions that `grid_sample` takes are no finer than float32, which may cost a level this much. Without the
# tolerance an area of one colour would come out a whole level darker, because fractions are cut off.
TOLERANCE = 1 / 64


def rotate(levels: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image by `degrees` (N,) counter-clockwise about its centre, bilinear."""
    height, width = levels.shape[2:]
    floats = levels if levels.is_floating_point() else levels.float()
    angle = torch.deg2rad(degrees.double())[:, None]
    cos, sin, x, y = angle.cos(), angle.sin(), _centres(width) - width / 2, _centres(height) - height / 2
    # The source of a pixel is a sum of a term of its column and one of its row: (cos x - sin y, sin x + cos y) from the
    # centre. Only the sums, one for every pixel, are large; the terms are in double precision at little cost.
    across, down = (cos * x, -sin * y), (sin * x, cos * y)
    grid = torch.empty(len(levels), height, width, 2, dtype=floats.dtype, device=levels.device)
    for axis, (of_x, of_y), size in ((0, across, width), (1, down, height)):
        scaled_x, scaled_y = (of_x * (2 / size)).to(grid), (of_y * (2 / size)).to(grid)  # the image spans -1..1
        torch.add(scaled_x[:, None, :], scaled_y[:, :, None], out=grid[..., axis])
    turned = grid_sample(floats, grid, padding_mode="border", align_corners=False)
    if not levels.is_floating_point():
        turned = truncate(turned.add_(TOLERANCE))
    first, last = _solve(cos, across[1], width)
    first_in_height, last_in_height = _solve(sin, down[1], height)
    black_before = (first.maximum(first_in_height) - x[0]).ceil().clamp_min(0)  # so many columns
    black_after = width - (last.minimum(last_in_height) - x[0]).ceil().clamp_max(width)
    line = levels.new_ones(1, width)
    inside = _windows(line, -black_before.flatten(), width) * _windows(line, black_after.flatten(), width)
    return turned.mul_(inside.view(-1, 1, height, width))


def shear_x(levels: Tensor, slope: Tensor) -> Tensor:
    """Take pixel (x, y) from (x + slope y, y), with `slope` (N,) and y counted from the top edge, bilinear.

    Each row moves as a whole by some pixels and a fraction, so that two neighbours, not four, make a pixel.
    """
    channels, height, width = levels.shape[1:]
    shift = slope.double()[:, None] * _centres(height)
    whole = shift.floor()
    edged = torch.cat([levels[..., :1], levels, levels[..., -1:]], dim=3)
    start = (whole + 1)[:, None].expand(-1, channels, -1)
    pairs = _windows(edged.flatten(0, 2), start.flatten(), width + 1).view(-1, channels, height, width + 1)
    pairs = pairs if levels.is_floating_point() else pairs.float()
    fraction = (shift - whole).to(pairs)[:, None, :, None]
    sheared = pairs[..., :-1].lerp(pairs[..., 1:], fraction)
    # A source lies inside the image where the pixel nearest to it does.
    inside = _windows(levels.new_ones(1, width), (shift + 0.5).floor().flatten(), width).view(-1, 1, height, width)
    return (sheared if levels.is_floating_point() else truncate(sheared)).mul_(inside)


def shear_y(levels: Tensor, slope: Tensor) -> Tensor:
    """Take pixel (x, y) from (x, y + slope x), with `slope` (N,) and x counted from the left edge, bilinear."""
    return shear_x(levels.mT, slope).mT


def translate_x(levels: Tensor, pixels: Tensor) -> Tensor:
    """Take pixel (x, y) from (x + pixels, y), with whole `pixels` (N,)."""
    channels, height, width = levels.shape[1:]
    return _windows(levels.flatten(0, 2), pixels.repeat_interleave(channels * height), width).view_as(levels)


def translate_y(levels: Tensor, pixels: Tensor) -> Tensor:
    """Take pixel (x, y) from (x, y + pixels), with whole `pixels` (N,)."""
    planes = levels.flatten(2).flatten(0, 1)  # one row after the other: to move by rows is to move along this long one
    start = (pixels * levels.shape[3]).repeat_interleave(levels.shape[1])
    return _windows(planes, start, planes.shape[1]).view_as(levels)


def _centres(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) + 0.5


def _windows(rows: Tensor, start: Tensor, width: int) -> Tensor:
    """Cut `width` pixels out of each row, from `start` on; before and after its pixels a row is black.

    The cuts are windows of one flat buffer, so stretches of memory are copied and not single pixels.

    Args:
        rows: (R, L).
        start: (R,) whole numbers, or (M,) for M windows of a single row.
        width: of the windows.
    """
    count, length = rows.shape
    stride = length + width  # the black pixels after a row are also those before the next one
    buffer = rows.new_zeros(width + count * stride)
    buffer[width:].view(count, stride)[:, :length] = rows
    first = start.clamp(-width, length).long() + torch.arange(width, buffer.numel(), stride, device=start.device)
    return buffer.unfold(0, width, 1).index_select(0, first.to(rows.device))


def _solve(slope: Tensor, offset: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The ends of the interval of x in which slope x + offset lies within size / 2 of 0."""
    slope = torch.where(slope.abs() < 1e-15, 1e-200, slope)  # such a source lies inside for every x or for none
    ends = (-size / 2 - offset) / slope, (size / 2 - offset) / slope
    return ends[0].minimum(ends[1]), ends[0].maximum(ends[1])
