"""Pixelation: boxes of pixels averaged, and the image enlarged again."""

import functools

import torch
from PIL import Image
from torch import Tensor

from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.pillow import through_pictures

# Pillow's resampling keeps its weights as integers with this many fractional bits (8-bit images).
_WEIGHT_BITS = 22

# Up to this many pixels a CPU is faster with whole batches in torch, above it with Pillow, image by image.
_FEW = 48 * 48


def pixelate_levels(levels: Tensor, scale: float, _draws: Draws) -> Tensor:
    """Shrink uint8 images by averaging boxes and enlarge them again by repeating pixels, as Pillow does.

    The sizes between are int(scale W) and int(scale H), at least 1. First the rows and then the columns are averaged,
    each with Pillow's integer weights and rounding, so that the bytes are equal to Pillow's. (Pillow 13 takes the
    columns first in some tall images; that order is not followed, it moves single levels.)
    """
    height, width = levels.shape[-2:]
    small = max(1, int(scale * height)), max(1, int(scale * width))
    rows, columns = (_nearest(*lengths, levels.device) for lengths in zip(small, (height, width), strict=True))
    if levels.device.type == "cpu" and height * width > _FEW:
        wide = _shrunk_and_widened(levels, *small)
        return torch.from_numpy(wide.numpy().take(rows.numpy(), axis=2))  # far faster than torch's indexing
    return _shrunk(levels, *small).index_select(3, columns).index_select(2, rows)


def pixelate(images: Tensor, scale: float, draws: Draws) -> Tensor:
    """Do the same to float images; their grey levels are truncated to 8 bits first, as the operation demands."""
    return unit(pixelate_levels(truncate(images), scale, draws), images.dtype)


def _shrunk_and_widened(levels: Tensor, height: int, width: int) -> Tensor:
    """Average boxes and repeat columns with Pillow itself."""
    full_height, full_width = levels.shape[2:]

    def change(image: Image.Image) -> Image.Image:
        narrow = image.resize((width, full_height), Image.Resampling.BOX)
        small = narrow.resize((width, height), Image.Resampling.BOX)
        return small.resize((full_width, height), Image.Resampling.NEAREST)

    return through_pictures(levels, change, height, full_width)


def _shrunk(levels: Tensor, height: int, width: int) -> Tensor:
    """Average boxes with the same arithmetic on any device."""
    small = levels
    if width != levels.shape[3]:
        small = _box(small.transpose(-1, -2), width).transpose(-1, -2)
    if height != levels.shape[2]:
        small = _box(small, height)
    return small


def _box(levels: Tensor, size: int) -> Tensor:
    """Average uint8 levels along the third axis down to `size`, in integers."""
    index, weights = _box_taps(levels.shape[2], size, levels.device)
    values = levels.contiguous().to(torch.int32)  # rows that lie together: a row is taken as one piece
    total = values.new_full((*levels.shape[:2], size, levels.shape[3]), 1 << (_WEIGHT_BITS - 1))
    for places, weight in zip(index, weights, strict=True):
        total.addcmul_(values.index_select(2, places), weight[:, None])
    return total.bitwise_right_shift_(_WEIGHT_BITS).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _box_taps(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
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
    return table[..., 0].T.contiguous().to(device), table[..., 1].T.to(torch.int32).contiguous().to(device)


@functools.lru_cache(maxsize=64)
def _nearest(length: int, size: int, device: torch.device) -> Tensor:
    """Positions that Pillow's NEAREST takes when it enlarges `length` pixels to `size`.

    Pillow adds up the step in float64, and where a position falls on the border of two pixels the error of that sum
    decides: so the sum is repeated here.
    """
    step = length / size
    place, places = 0.5 * step, []
    for _ in range(size):
        places.append(min(int(place), length - 1))
        place += step
    return torch.tensor(places, device=device)
