"""Colours made paler or more vivid."""

import torch
from torch import Tensor

from robust_bench.corruptions.draws import Draws


def saturate(images: Tensor, constant: tuple[float, float], _draws: Draws) -> Tensor:
    """Multiply the saturation S of the HSV colour model by a factor, add an offset and clip it to [0, 1].

    With V the largest channel and S' the new saturation, every channel x becomes V - (V - x) S' / S. Grey pixels have
    S = 0 and count as red: with an offset they become (V, V (1 - S'), V (1 - S')), as in the published code.
    """
    factor, offset = constant
    if images.shape[1] == 1:
        return images.clone()  # the first of three equal channels is V
    value, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    tiny = torch.finfo(images.dtype).tiny
    saturation = (value - lowest).div_(value.clamp(min=tiny))
    raised = saturation.mul(factor).add_(offset).clamp_(0.0, 1.0)
    missing = (value - images).mul_(raised / saturation.clamp(min=tiny))
    if offset > 0:
        missing[:, 1:].add_(raised.mul_(value).mul_(saturation == 0))
    return value - missing
