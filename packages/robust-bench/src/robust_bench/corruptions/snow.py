"""Snow: blown flakes over a whitened image."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import fine_uniform_field, normal_field
from robust_bench.corruptions.motion import motion_blur

Constant = tuple[float, float, float, float, int, float, float]

_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in a grey level
_KEEP = 255e-6  # in grey levels: rounding must not lower an exact one


def sample_snow(key: Key, shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Draw a standard normal number per pixel, (N, H, W), and the wind's direction, (N,) in (-135, -45) degrees."""
    angle = fine_uniform_field(key("angle"), ()).mul_(90.0).sub_(135.0)
    return {"normal": normal_field(key("normal"), shape[1:]), "angle": angle}


def snow(images: Tensor, constant: Constant, draws: Draws) -> Tensor:
    """Whiten the image and add flakes twice, the second time turned by 180 degrees.

    As the original script has it: the layer of flakes is cut at its centre and kept as 8-bit grey levels, truncated,
    before and after the wind blurs it.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        constant: mean and deviation of the noise that flakes are made of, zoom, threshold below which there is no
            flake, radius and sigma of the motion blur, share of the image that is not whitened.
        draws: "normal" (N, H, W) and "angle" (N,) in degrees.
    """
    return blown(images, fallen(images, constant, draws), draws.field("angle", (len(images),)), constant)


def fallen(images: Tensor, constant: Constant, draws: Draws) -> Tensor:
    """Make the layer of flakes that no wind has blown yet, (N, 1, H, W) in whole grey levels 0..255."""
    height, width = images.shape[2:]
    flakes = _flakes(images, constant, draws)
    top, left = (flakes.shape[2] - height) // 2, (flakes.shape[3] - width) // 2
    return flakes[:, :, top : top + height, left : left + width].floor()


def blown(images: Tensor, flakes: Tensor, angles: Tensor, constant: Constant) -> Tensor:
    """Let the wind blow a layer of flakes in a direction per image, (N,) in degrees, and put it on the images."""
    radius, sigma, share = constant[4:]
    return _cover(images, motion_blur(flakes, angles, radius, sigma).add_(_KEEP).floor_(), share)


def snow_without_truncation(images: Tensor, constant: Constant, draws: Draws) -> Tensor:
    """Do the same as the package `imagecorruptions`: blur first, then round to 8 bits and cut at the top left."""
    radius, sigma, share = constant[4:]
    height, width = images.shape[2:]
    flakes = _flakes(images, constant, draws)
    layer = motion_blur(flakes, draws.field("angle", (len(images),)), radius, sigma)
    return _cover(images, layer[:, :, :height, :width].round(), share)


def _flakes(images: Tensor, constant: Constant, draws: Draws) -> Tensor:
    """Enlarge the middle of the noise linearly and cut off what is too dark, (N, 1, H or more, W or more) in 0..255."""
    mean, deviation, zoom, threshold = constant[:4]
    count, _, height, width = images.shape
    normal = draws.field("normal", (count, height, width)).to(images)
    rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - rows) // 2, (width - columns) // 2
    levels = normal[:, None, top : top + rows, left : left + columns].mul(255.0 * deviation).add_(255.0 * mean)
    size = round(rows * zoom), round(columns * zoom)
    layer: Tensor = interpolate(levels, size=size, mode="bilinear", align_corners=True)
    return torch.threshold_(layer, 255.0 * threshold, 0.0).clamp_(max=255.0)


def _cover(images: Tensor, flakes: Tensor, share: float) -> Tensor:
    """Keep a share of the image, let the rest be at least 1.5 grey + 0.5, and add the flakes in 0..255 twice."""
    if images.shape[1] == 1:
        white = images.mul(1.5).add_(0.5)
    else:
        red, green, blue = (1.5 * weight for weight in _WEIGHTS)
        white = images[:, :1].mul(red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:], alpha=blue).add_(0.5)
    out = torch.maximum(images, white).lerp_(images, share)
    return out.add_(flakes + flakes.flip(2, 3), alpha=1.0 / 255.0)
