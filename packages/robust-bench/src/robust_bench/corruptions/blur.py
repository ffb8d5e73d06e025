"""Corruptions that blur."""

from torch import Tensor

from robust_bench.corruptions.banded import gaussian, replicate
from robust_bench.corruptions.corruption import LARGE, Corruption
from robust_bench.corruptions.defocus import defocus_blur
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.glass import glass_blur, sample_offsets
from robust_bench.corruptions.motion import drawn_motion_blur, sample_angle
from robust_bench.corruptions.zoom import zoom_blur


def gaussian_blur(images: Tensor, sigma: float, _draws: Draws) -> Tensor:
    """Smooth with a Gaussian of radius 4 sigma, continuing the outermost pixels beyond the edges."""
    return gaussian(images, (sigma, sigma), 4.0, replicate)


BLUR = (
    Corruption(name="defocus_blur", group="blur", apply=defocus_blur, smallest=LARGE),
    Corruption(name="glass_blur", group="blur", apply=glass_blur, sample=sample_offsets, smallest=LARGE),
    Corruption(name="motion_blur", group="blur", apply=drawn_motion_blur, sample=sample_angle, smallest=LARGE),
    Corruption(name="zoom_blur", group="blur", apply=zoom_blur, smallest=LARGE),
    Corruption(name="gaussian_blur", group="blur", apply=gaussian_blur, smallest=LARGE, extra=True),
)
