"""The eleven resizers of ImageNet-S as products with banded matrices, on CPU and CUDA and without OpenCV."""

import functools

import torch
from torch import Tensor

from robust_bench.corruptions.banded import Block, product
from robust_bench.datasets import opencv_filters, pillow_filters

RESIZERS = (
    *(f"pil-{name}" for name in ("nearest", "box", "bilinear", "hamming", "cubic", "lanczos")),
    *(f"opencv-{name}" for name in ("nearest", "bilinear", "area", "cubic", "lanczos")),
)
"""The eleven resizers of ImageNet-S. Pillow's widen their filters where they shrink, OpenCV's do not but for area."""

_ROWS = 32  # of a block of a matrix; from 16 to 64 a CPU is about as fast


def resize(images: Tensor, size: tuple[int, int], resizer: str) -> Tensor:
    """Resize uint8 images as Pillow or OpenCV do, each side on its own.

    Tang et al., "RobustART", arXiv:2109.05211 (ImageNet-S). Weights are integers, the libraries' own where they have
    such, and sums of them are exact in float64, so the bytes are the same on every device and in every batch.

    `pil-*` gives the bytes of Pillow 10 to 13, whose filters widen where the image shrinks: along the rows first,
    rounded to 8 bits, then down the columns. (Pillow 13 turns that round where it is less work, e.g. from 500 x 375 to
    256 x 256, which moves values of noise by up to 9 levels; no version before does, and this never does.)

    `opencv-*` follows OpenCV 4.8 to 5.0, whose filters do not widen but for `area`. On noise no value differs by more
    than one level, and by one level these do: `nearest`, `bilinear`, and `area` with whole ratios or as it enlarges:
    none; other `area`: 1 of 20,000 (up to 1 of 90 at ratios where many means fall on halves, which OpenCV's float32
    sums miss); `cubic`: 1 of 50,000 (up to 1 of 1,000) of what Intel's IPP computes, which the wheels for x86 hold, and
    1 of 25 elsewhere; `lanczos`: 1 of 100,000 (up to 1 of 2,000).

    Args:
        images: uint8 (N, C, H, W).
        size: height and width that they shall have, in pixels.
        resizer: one of `RESIZERS`.

    Returns:
        uint8 (N, C, height, width).

    Raises:
        TypeError: if the images are not uint8.
        ValueError: for another shape, an empty side, a size below 1, or an unknown name.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}: resizers round to 8 bits, so give them 8 bits")
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must have the shape (N, C, H, W) with pixels, got {tuple(images.shape)}")
    if min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1 pixel, got {size}")
    if resizer not in RESIZERS:
        raise ValueError(f"unknown resizer {resizer!r}: choose from {', '.join(RESIZERS)}")
    library, _, name = resizer.partition("-")
    if tuple(images.shape[2:]) == size:
        return images.clone()
    planes = images.reshape(-1, *images.shape[2:])
    if name == "nearest":
        out = _nearest(library, planes, size)
    elif library == "pil":
        out = _pillow(name, planes, size)
    else:
        out = _opencv(name, planes, size)
    return out.view(*images.shape[:2], *size)


def _nearest(library: str, planes: Tensor, size: tuple[int, int]) -> Tensor:
    places = pillow_filters.nearest if library == "pil" else opencv_filters.nearest
    rows, columns = (places(*pair).to(planes.device) for pair in zip(planes.shape[1:], size, strict=True))
    return planes.index_select(1, rows).index_select(2, columns)


def _pillow(name: str, planes: Tensor, size: tuple[int, int]) -> Tensor:
    for axis in (1, 0):
        if planes.shape[1 + axis] != size[axis]:
            band = _band("pil", name, planes.shape[1 + axis], size[axis], planes.device)
            planes = _halves_up(product(band, planes.double(), axis), pillow_filters.BITS)
    return planes


def _opencv(name: str, planes: Tensor, size: tuple[int, int]) -> Tensor:
    high, wide = planes.shape[1:]
    if name == "area" and high >= size[0] and wide >= size[1]:
        if high % size[0] == wide % size[1] == 0:
            return _means(planes, size)
        name = "mean"
    sums = product(_band("opencv", name, wide, size[1], planes.device), planes.double(), 1)
    if name in ("bilinear", "area"):
        return _mixed_rows(name, sums.int(), size[0])
    sums = product(_band("opencv", name, high, size[0], planes.device), sums, 0)
    if name == "lanczos":
        return _halves_up(sums, 2 * opencv_filters.COARSE_BITS)
    return sums.mul_(2.0 ** (-2 * opencv_filters.FINE_BITS)).round_().clamp_(0.0, 255.0).to(torch.uint8)


def _means(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Average boxes of whole pixels as OpenCV does: halves go up in boxes of 2 x 2, to even in others."""
    high, wide = (length // wanted for length, wanted in zip(planes.shape[1:], size, strict=True))
    sums = planes.view(-1, size[0], high, size[1], wide).sum((2, 4), dtype=torch.int32)
    if high == wide == 2:
        return _halves_up(sums.double(), 2)
    return sums.float().mul_(1.0 / (high * wide)).round_().to(torch.uint8)


def _mixed_rows(name: str, sums: Tensor, size: int) -> Tensor:
    """Mix two rows each as OpenCV does, in 32 bits that drop low bits on the way."""
    places, shares = opencv_filters.taps(name, sums.shape[1], size)
    weights = opencv_filters.integers(name, shares).int()
    sums = sums >> 4
    above, below = (
        sums.index_select(1, place).mul_(weight[:, None]).bitwise_right_shift_(16)
        for place, weight in zip(places.T.to(sums.device), weights.T.to(sums.device), strict=True)
    )
    return above.add_(below).add_(2).bitwise_right_shift_(2).to(torch.uint8)


def _halves_up(sums: Tensor, bits: int) -> Tensor:
    """Round sums in units of 2^-bits to 8 bits."""
    return sums.mul_(2.0**-bits).add_(0.5).floor_().clamp_(0.0, 255.0).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _band(library: str, name: str, length: int, size: int, device: torch.device) -> tuple[Block, ...]:
    """The matrix from `length` to `size` pixels, of integers in float64."""
    if library == "pil":
        places, shares = pillow_filters.taps(name, length, size)
        weights = pillow_filters.integers(shares)
    else:
        places, shares = opencv_filters.taps(name, length, size)
        weights = opencv_filters.integers(name, shares)
    matrix = torch.zeros(size, length, dtype=torch.float64).scatter_add_(1, places, weights).to(device)
    firsts, lasts = places.amin(1).tolist(), places.amax(1).tolist()
    blocks = []
    for start in range(0, size, _ROWS):
        rows = slice(start, min(start + _ROWS, size))
        columns = slice(min(firsts[rows]), max(lasts[rows]) + 1)
        blocks.append((rows, columns, matrix[rows, columns].clone()))  # without the rest of the matrix
    return tuple(blocks)
