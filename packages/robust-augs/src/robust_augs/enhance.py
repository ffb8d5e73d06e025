"""The operations that AugMix leaves out by default because ImageNet-C has them: color, contrast, brightness, sharpness.

Each takes images (N, C, H, W) on the scale 0..255 and a factor (N,) of at least 0, and blends the image with a poorer
version of itself: factor 0 gives that version, 1 the image, more than 1 leads away. On uint8 the results are truncated
as Pillow's are and may differ by one level; floats of the same scale stay floats.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from robust_augs._levels import per_image, truncate


def color(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image."""
    return _blend(_grey(levels), levels, factor)


def contrast(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a uniform image of the mean grey level."""
    mean = _grey(levels).double().mean(dim=(2, 3), keepdim=True)
    return _blend(mean if levels.is_floating_point() else (mean + 0.5).floor(), levels, factor)


def brightness(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(levels.new_zeros(1), levels, factor)


def sharpness(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed by a 3 x 3 kernel, 5 in the centre and 1 elsewhere, over 13; borders stay."""
    if min(levels.shape[2:]) < 3:
        return levels
    floats = levels if levels.is_floating_point() else levels.float()
    kernel = floats.new_ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 5
    smooth = conv2d(floats.flatten(0, 1)[:, None], kernel).view_as(floats[..., 1:-1, 1:-1]) / 13
    degenerate = floats.clone()
    degenerate[..., 1:-1, 1:-1] = smooth if levels.is_floating_point() else (smooth + 0.5).floor()
    return _blend(degenerate, levels, factor)


def _grey(levels: Tensor) -> Tensor:
    """Luma of ITU-R 601-2, (N, 1, H, W), with Pillow's 16-bit weights; a grey image is its own."""
    if levels.shape[1] == 1:
        return levels
    if levels.shape[1] != 3:
        raise ValueError(f"color and contrast need grey or RGB images, got {levels.shape[1]} channels: all_ops=False")
    weights = levels.new_tensor([19595, 38470, 7471], dtype=levels.dtype if levels.is_floating_point() else torch.int32)
    weighted = (levels * weights.view(3, 1, 1)).sum(dim=1, keepdim=True)
    return weighted / 65536 if levels.is_floating_point() else (weighted + 32768) // 65536


def _blend(degenerate: Tensor, levels: Tensor, factor: Tensor) -> Tensor:
    """Go from the degenerate image towards the image, and beyond it for factors above 1."""
    floats = levels if levels.is_floating_point() else levels.float()
    start = degenerate.to(floats.dtype)
    blended = ((floats - start) * per_image(factor, levels).to(floats.dtype) + start).clamp_(0, 255)
    return blended if levels.is_floating_point() else truncate(blended)
