"""Spatter: drops of water or splashes of mud on the lens."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_bench.corruptions.banded import gaussian, replicate
from robust_bench.corruptions.canny import canny
from robust_bench.corruptions.chamfer import UNIT, distances
from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import normal_field

Constant = tuple[float, float, float, float, float, int]
Levels = NDArray[np.uint8]
Whole = TypeVar("Whole", NDArray[np.int16], NDArray[np.int32])

_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)
_TRUNCATE = 4.0  # of the Gaussians, in multiples of sigma
_LEAST_MUD = 0.8  # thinner mud is none
_RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))  # light from the top left


def sample_spatter(key: Key, shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Draw a standard normal number per pixel, (N, H, W)."""
    return {"normal": normal_field(key("normal"), shape[1:])}


def spatter(images: Tensor, constant: Constant, draws: Draws) -> Tensor:
    """Add drops of water, which shine at their rims, or cover parts of the image with mud.

    Where the liquid is gets worked out on the CPU in float64, whatever the images are: the edges of the drops hang on
    single pixels.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        constant: mean and deviation of the noise that the liquid is made of, sigma that smooths it, threshold below
            which there is none, strength of the water or sigma of the mud's rim, and 0 for water or 1 for mud.
        draws: "normal" (N, H, W).
    """
    mean, deviation, sigma, threshold, last, is_mud = constant
    count, channels, height, width = images.shape
    normal = draws.field("normal", (count, height, width))
    layer = liquid(normal, mean, deviation, sigma)
    if not is_mud:
        return watered(images, torch.threshold_(layer, threshold, 0.0), last)
    colour = images.new_tensor(_MUD)[:channels, None, None] / 255.0
    thickness = gaussian((layer > threshold).double(), (last, last), _TRUNCATE, replicate)
    thickness = torch.threshold_(thickness, _LEAST_MUD, 0.0)
    return images.lerp(colour, thickness[:, None].to(images))


def liquid(normal: Tensor, mean: float, deviation: float, sigma: float) -> Tensor:
    """Smooth standard normal numbers (N, H, W) into how thick a liquid is; float64, on the CPU."""
    return gaussian(normal.cpu().double().mul(deviation).add_(mean), (sigma, sigma), _TRUNCATE, replicate)


def watered(images: Tensor, layer: Tensor, strength: float) -> Tensor:
    """Add water of a given thickness, float64 (N, H, W) on the CPU, 0 where there is none."""
    colour = images.new_tensor(_WATER)[: images.shape[1], None, None] / 255.0
    shine = torch.from_numpy(_shine(layer.mul(255.0).to(torch.uint8).numpy())).to(images)
    return images.addcmul(shine[:, None], colour, value=strength)


def _shine(levels: Levels) -> NDArray[np.float32]:
    """Give how much light layers of water reflect, (N, H, W) in [0, 1], from their thickness, uint8 (N, H, W)."""
    depth = _sum3(distances(canny(levels, 50, 150))) // (9 * UNIT)
    relief = _rounded_mean3(_relief(_equalised(depth.astype(np.uint8))))
    light = np.multiply(levels, relief, dtype=np.float32)
    brightest = light.max(axis=(1, 2), keepdims=True)
    np.divide(light, brightest, out=light, where=brightest > 0)
    return light


def _equalised(levels: Levels) -> Levels:
    """Spread the grey levels of each image so that they are used evenly, as OpenCV's `equalizeHist` does."""
    count = len(levels)
    offsets = 256 * np.arange(count)[:, None, None]
    numbers = np.bincount((levels + offsets).ravel(), minlength=256 * count).reshape(count, 256)
    lowest = (numbers > 0).argmax(axis=1)
    numbers[np.arange(count), lowest] = 0
    rest = numbers.sum(axis=1, keepdims=True)
    scale = (255.0 / np.maximum(rest, 1)).astype(np.float32)
    table = np.rint(numbers.cumsum(axis=1).astype(np.float32) * scale)
    table = np.where(rest == 0, np.arange(256), table)  # a plain image stays as it is
    spread: Levels = table.astype(np.uint8).ravel()[levels + offsets]
    return spread


def _relief(levels: Levels) -> Levels:
    """Correlate with a 3 x 3 relief filter and clip to 0..255."""
    height, width = levels.shape[1:]
    wide = _mirrored(levels.astype(np.int16))
    total = np.zeros(levels.shape, dtype=np.int16)
    for down, row in enumerate(_RELIEF):
        for across, weight in enumerate(row):
            if weight:
                total += weight * wide[:, down : down + height, across : across + width]
    return np.clip(total, 0, 255).astype(np.uint8)


def _rounded_mean3(levels: Levels) -> Levels:
    """Average squares of 3 x 3 pixels and round; a ninth is never half-way."""
    return ((_sum3(levels.astype(np.int16)) + 4) // 9).astype(np.uint8)


def _sum3(values: Whole) -> Whole:
    """Add up squares of 3 x 3 pixels."""
    wide = _mirrored(values)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total: Whole = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return total


def _mirrored(values: Whole) -> Whole:
    """Continue images (N, H, W) by one pixel on every side, mirrored about the outermost pixels."""
    wide: Whole = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    return wide
