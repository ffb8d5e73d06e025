"""Corruptions that stand for weather and light."""

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.draws import Draws


def brightness(images: Tensor, added: float, _draws: Draws) -> Tensor:
    """Add to the value V of the HSV colour model, keeping hue and saturation.

    V is the largest channel, so with V' = clip(V + added, 0, 1) every channel x becomes V' (1 - (V - x) / V), that is
    x V' / V in the rounding of the way through hue and saturation; black becomes the grey V'.
    """
    value = images.amax(dim=1, keepdim=True)
    raised = (value + added).clamp_(0.0, 1.0)
    missing = (value - images).div_(value.clamp(min=torch.finfo(images.dtype).tiny))
    return missing.neg_().add_(1.0).mul_(raised)


WEATHER = (Corruption(name="brightness", group="weather", apply=brightness),)
