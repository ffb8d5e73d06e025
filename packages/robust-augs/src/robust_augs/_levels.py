"""Images on the scale 0..255, on which the operations of AugMix are defined: uint8, or floats that stay unrounded."""

import torch
from torch import Tensor

from robust_augs._images import as_float


def as_levels(images: Tensor, *, quantize: bool) -> Tensor:
    """Bring images in [0, 1] or uint8 to the scale 0..255: as uint8, the nearest levels, or as floats.

    As uint8 what lies beyond the range, which is looked for on a CPU only, becomes black or white.
    """
    if not quantize:
        return as_float(images) * 255
    return images if images.dtype == torch.uint8 else truncate((as_float(images) * 255 + 0.5).clamp_(0, 255))


def truncate(levels: Tensor) -> Tensor:
    """Bring floats in [0, 256) to uint8 by cutting off their fractions, as Pillow does; through int16 it is faster."""
    return levels.to(torch.int16).to(torch.uint8)


def per_image(values: Tensor, levels: Tensor) -> Tensor:
    """Shape one value per image, (N,), so that it meets all pixels of its image in `levels`, on their device."""
    return values.to(levels.device).view(-1, 1, 1, 1)
