"""Defocus blur: every point becomes a disk, as it does out of a lens's focus."""

import functools

import torch
from torch import Tensor
from torch.nn.functional import pad

from robust_bench.corruptions.draws import Draws

_GRID = 8  # half a side of the grid on which small disks are drawn


def defocus_blur(images: Tensor, constant: tuple[float, float], _draws: Draws) -> Tensor:
    """Correlate with a disk whose edge is softened; the image is mirrored about its outermost pixels.

    By way of the Fourier transform, which costs the same for every radius.

    Args:
        images: (N, C, H, W) floats.
        constant: radius of the disk and sigma of its soft edge, in pixels.
    """
    height, width = images.shape[2:]
    margin = len(disk(*constant)) // 2
    sides = _transform_length(height + 2 * margin), _transform_length(width + 2 * margin)
    below, right = sides[0] - height - margin, sides[1] - width - margin
    wide = pad(images, (margin, right, margin, below), mode="reflect")
    waves = torch.fft.rfft2(wide).mul_(_spectrum(*constant, sides, images.dtype, images.device))
    blurred: Tensor = torch.fft.irfft2(waves, s=sides)
    return blurred[..., margin : margin + height, margin : margin + width].contiguous()


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve callers that want gradients as well
def disk(radius: float, softness: float) -> Tensor:
    """Draw the disk X^2 + Y^2 <= radius^2 with sum 1 and blur it, float64 (side, side), without rows of zeros.

    The grid reaches to 8 pixels, or to a larger radius; the blur is a Gaussian of 3 x 3 pixels there, else 5 x 5, and
    mirrors the grid at its outermost pixels. A disk that fills its grid, as those of radius 8 and 10 do, so gets a sum
    of 1.01 and brightens the image a little, as the published code does.
    """
    reach, margin = (_GRID, 1) if radius <= _GRID else (int(radius), 2)
    line = torch.arange(-reach, reach + 1, dtype=torch.float64)
    filled = (line[:, None] ** 2 + line**2 <= radius**2).double()
    filled /= filled.sum()
    edge = torch.exp(-0.5 * (torch.arange(-margin, margin + 1).double() / softness) ** 2)
    edge /= edge.sum()
    wide = pad(filled[None, None], (margin, margin, margin, margin), mode="reflect")
    soft = torch.nn.functional.conv2d(wide, edge.outer(edge)[None, None])[0, 0]
    used = int(soft.any(dim=0).nonzero()[0])
    return soft[used : len(soft) - used, used : len(soft) - used]


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _spectrum(
    radius: float, softness: float, sides: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Transform the disk, centred on the first pixel: real numbers, because it is symmetric."""
    kernel = disk(radius, softness)
    side = len(kernel)
    grid = torch.zeros(sides, dtype=torch.float64)
    grid[:side, :side] = kernel
    waves: Tensor = torch.fft.rfft2(grid.roll((-(side // 2), -(side // 2)), dims=(0, 1)))
    return waves.real.to(dtype).to(device)


@functools.cache
def _transform_length(least: int) -> int:
    """Find the next length whose prime factors are 2, 3 and 5: transforms of such lengths are fast."""
    length = least
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
