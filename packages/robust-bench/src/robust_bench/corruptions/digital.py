"""Corruptions that come from handling images: contrast and resolution."""

import functools

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.draws import Draws

# Pillow's resampling keeps its weights as integers with this many fractional bits (8-bit images).
_WEIGHT_BITS = 22


def contrast(images: Tensor, factor: float, _draws: Draws) -> Tensor:
    """Pull every channel towards its spatial mean m: (x - m) factor + m."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, factor)


def contrast_levels(levels: Tensor, factor: float) -> Tensor:
    """Do the same to uint8 images, through a table of the 256 grey levels per channel in float64.

    The published bytes come from float64 arithmetic and truncation, which float32 does not reproduce everywhere.
    """
    count, channels, height, width = levels.shape
    rows = levels.reshape(count * channels, height * width)
    mean = rows.sum(dim=1, dtype=torch.int64, keepdim=True).double() / (255.0 * height * width)
    steps = torch.arange(256, dtype=torch.float64, device=levels.device) / 255.0
    tables = ((steps - mean) * factor + mean).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
    offsets = torch.arange(len(rows), dtype=torch.int32, device=levels.device)[:, None] * 256
    index = rows.to(torch.int32).add_(offsets)
    return tables.view(-1).index_select(0, index.view(-1)).view(levels.shape)


def pixelate_levels(levels: Tensor, scale: float) -> Tensor:
    """Shrink uint8 images by averaging boxes and enlarge them again by repeating pixels, as Pillow does.

    The sizes between are int(scale W) and int(scale H), at least 1. First the rows and then the columns are averaged,
    each with Pillow's integer weights and rounding, so that the bytes are equal to Pillow's. (Pillow 13 takes the
    columns first in some tall images; that order is not followed, it moves single levels.)
    """
    height, width = levels.shape[-2:]
    small_height, small_width = max(1, int(scale * height)), max(1, int(scale * width))
    small = levels
    if small_width != width:
        small = _box(small.transpose(-1, -2), small_width).transpose(-1, -2)
    if small_height != height:
        small = _box(small, small_height)
    rows = _nearest(small_height, height).to(levels.device)
    columns = _nearest(small_width, width).to(levels.device)
    return small.index_select(3, columns).index_select(2, rows)


def pixelate(images: Tensor, scale: float, _draws: Draws) -> Tensor:
    """Do the same to float images; their grey levels are truncated to 8 bits first, as the operation demands."""
    levels = images.add(1e-6).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
    return pixelate_levels(levels, scale).to(images.dtype).div_(255.0)


def _box(levels: Tensor, size: int) -> Tensor:
    """Average uint8 levels along the third axis down to `size`, in integers."""
    index, weights = (table.to(levels.device) for table in _box_taps(levels.shape[2], size))
    values = levels.contiguous().to(torch.int32)  # rows that lie together: a row is taken as one piece
    total = values.new_full((*levels.shape[:2], size, levels.shape[3]), 1 << (_WEIGHT_BITS - 1))
    for places, weight in zip(index, weights, strict=True):
        total.addcmul_(values.index_select(2, places), weight[:, None])
    return total.bitwise_right_shift_(_WEIGHT_BITS).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _box_taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Positions and integer weights, each (taps, size), of Pillow's BOX filter from `length` to `size` pixels."""
    ratio = length / size
    support = 0.5 * ratio
    found: list[list[tuple[int, int]]] = []
    for position in range(size):
        centre = (position + 0.5) * ratio
        start, stop = max(0, int(centre - support + 0.5)), min(length, int(centre + support + 0.5))
        inside = [-0.5 < (place - centre + 0.5) * (1.0 / ratio) <= 0.5 for place in range(start, stop)]
        share = 1.0 / sum(inside)
        weight = int(0.5 + share * (1 << _WEIGHT_BITS))
        found.append([(place, weight) for place, hit in zip(range(start, stop), inside, strict=True) if hit])
    taps = max(map(len, found))
    for pairs in found:
        pairs.extend([(pairs[-1][0], 0)] * (taps - len(pairs)))
    table = torch.tensor(found)
    return table[..., 0].T.contiguous(), table[..., 1].T.to(torch.int32).contiguous()


@functools.lru_cache(maxsize=64)
def _nearest(length: int, size: int) -> Tensor:
    """Positions that Pillow's NEAREST takes when it enlarges `length` pixels to `size`.

    Pillow adds up the step in float64, and where a position falls on the border of two pixels the error of that sum
    decides: so the sum is repeated here.
    """
    step = length / size
    place, places = 0.5 * step, []
    for _ in range(size):
        places.append(min(int(place), length - 1))
        place += step
    return torch.tensor(places)


DIGITAL = (
    Corruption(name="contrast", group="digital", apply=contrast, apply_levels=contrast_levels),
    Corruption(name="pixelate", group="digital", apply=pixelate, apply_levels=pixelate_levels),
)
