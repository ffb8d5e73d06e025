"""Corruptions that stand for weather and light."""

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import LARGE, Corruption
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fog import fog, sample_fog
from robust_bench.corruptions.frost import frost_corruption
from robust_bench.corruptions.snow import sample_snow, snow, snow_without_truncation
from robust_bench.corruptions.spatter import sample_spatter, spatter


def brightness(images: Tensor, added: float, _draws: Draws) -> Tensor:
    """Add to the value V of the HSV colour model, keeping hue and saturation.

    V is the largest channel, so with V' = clip(V + added, 0, 1) every channel x becomes V' (1 - (V - x) / V), that is
    x V' / V in the rounding of the way through hue and saturation; black becomes the grey V'.
    """
    value = images.amax(dim=1, keepdim=True)
    raised = (value + added).clamp_(0.0, 1.0)
    missing = (value - images).div_(value.clamp(min=torch.finfo(images.dtype).tiny))
    return missing.neg_().add_(1.0).mul_(raised)


WEATHER = (
    Corruption(name="snow", group="weather", apply=snow, sample=sample_snow, smallest=LARGE),
    frost_corruption(),
    Corruption(name="fog", group="weather", apply=fog, sample=sample_fog, smallest=LARGE),
    Corruption(name="brightness", group="weather", apply=brightness),
    Corruption(name="spatter", group="weather", apply=spatter, sample=sample_spatter, smallest=LARGE, extra=True),
)
WEATHER_IMAGECORRUPTIONS = (
    Corruption(name="snow", group="weather", apply=snow_without_truncation, sample=sample_snow, smallest=LARGE),
    frost_corruption(variant="imagecorruptions"),
)
