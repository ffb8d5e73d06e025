"""Sequences of an image that is blurred in a growing measure or a turning direction."""

from collections.abc import Iterator

import torch
from torch import Tensor

from robust_bench.corruptions.banded import gaussian, replicate
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.motion import motion_blur
from robust_bench.corruptions.sequences.geometry import zooms
from robust_bench.corruptions.sequences.perturbation import Draw, Perturbation, Window
from robust_bench.corruptions.sequences.presets import Steps


def _motion_blur(images: Tensor, _window: Window, steps: Steps, _draw: Draw) -> Iterator[Tensor]:
    """Drag the image along a line that turns: see `robust_bench.corruptions.motion`."""
    radius, sigma = steps.constant
    clean = unit(images)
    for angle in steps.values:
        yield truncate(motion_blur(clean, torch.full((len(images),), angle), radius, sigma))


def _zoom_blur(images: Tensor, window: Window, steps: Steps, _draw: Draw) -> Iterator[Tensor]:
    """Average all enlargements so far, which are 8-bit images; the first is the image itself."""
    total: Tensor | None = None
    for number, zoomed in enumerate(zooms(images, window, steps), start=1):
        total = zoomed.to(torch.int32) if total is None else total.add_(zoomed)
        yield torch.div(total, number, rounding_mode="floor").to(torch.uint8)


def _gaussian_blur(images: Tensor, _window: Window, steps: Steps, _draw: Draw) -> Iterator[Tensor]:
    """Smooth with a Gaussian that grows, continuing the outermost pixels beyond the edges."""
    clean = unit(images)
    for sigma in steps.values:
        yield truncate(gaussian(clean, (sigma, sigma), steps.constant, replicate))


BLURS = (
    Perturbation(name="motion_blur", make=_motion_blur),
    Perturbation(name="zoom_blur", make=_zoom_blur, whole=True),
    Perturbation(name="gaussian_blur", make=_gaussian_blur),
)
