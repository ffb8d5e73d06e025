"""Between floats in [0, 1] and 8-bit grey levels, as the published code goes."""

import torch
from torch import Tensor

_KEEP = 1e-6  # in [0, 1] units: rounding in float32 must not lower an exact grey level


def truncate(images: Tensor) -> Tensor:
    """Clip floats to [0, 1], multiply them by 255 and cut off what follows the point; uint8 comes back.

    float32 is raised by 1e-6 first, which keeps exact grey levels from falling; float64 is taken as it is.
    """
    keep = 0.0 if images.dtype == torch.float64 else _KEEP
    levels = torch.add(images.new_full((), 255.0 * keep), images, alpha=255.0).clamp_(0.0, 255.0)
    return levels.to(torch.int16).to(torch.uint8)  # by way of int16: on a CPU three times faster


def unit(levels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Divide grey levels by 255; floats in [0, 1] come back.

    float64 is exact division; float32, a bit in the last place apart, is multiplied by 1/255, which is twice as fast.
    """
    images = levels.to(dtype)
    return images.div_(255.0) if dtype == torch.float64 else images.mul_(1.0 / 255.0)
