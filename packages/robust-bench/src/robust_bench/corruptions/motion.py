"""Motion blur: the image dragged along a line, with Gaussian weights that fall to one side."""

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import fine_uniform_field

_STEEPEST = 45.0  # degrees


def sample_angle(key: Key, _shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Draw the direction of every image, (N,) in degrees, uniform in (-45, 45)."""
    return {"angle": fine_uniform_field(key("angle"), ()).mul_(2.0).sub_(1.0).mul_(_STEEPEST)}


def drawn_motion_blur(images: Tensor, constant: tuple[int, float], draws: Draws) -> Tensor:
    """Blur every image along its own drawn direction.

    Args:
        images: (N, C, H, W) floats.
        constant: radius and sigma in pixels.
        draws: "angle" (N,) in degrees.
    """
    radius, sigma = constant
    return motion_blur(images, draws.field("angle", (len(images),)), radius, sigma)


def motion_blur(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur along a line as ImageMagick does, which the published code calls; see there, `MotionBlurImage`.

    The sum of k_i times the image moved by i = 0, 1 .. 2 radius steps of one pixel against the direction, rounded to
    whole pixels, where k_i is proportional to exp(-i^2 / (2 sigma^2)) and the k_i add up to 1. The outermost pixels
    are continued beyond the edges. Once the image would move by its whole height or width, the sum stops, short of 1.

    Args:
        images: (N, C, H, W) float32 or float64, any number of channels and any range.
        angles: (N,) in degrees, any; 0 looks to the right and 90 down. On the images' device, or on the CPU.
        radius: of the line, in pixels.
        sigma: of the weights, in pixels.

    Returns:
        images of the same shape and type in new memory, not quantised.
    """
    weights = _weights(radius, sigma)
    steps = _steps(angles, len(weights))
    if images.device.type != "cpu":
        return _gathered(images, steps.to(images.device, non_blocking=True), weights)
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for index, path in enumerate(steps.tolist()):
        _add_up(images[index], path, weights, out[index])
    return out


@functools.cache
def _weights(radius: int, sigma: float) -> tuple[float, ...]:
    heights = [math.exp(-(step**2) / (2.0 * sigma**2)) for step in range(2 * radius + 1)]
    return tuple(height / sum(heights) for height in heights)


def _steps(angles: Tensor, count: int) -> Tensor:
    """Which pixel each step reads, relative to its own: int64 (N, count, 2), down and to the right."""
    turn = torch.deg2rad(angles.double())
    way = torch.stack([turn.sin(), turn.cos()], dim=1)[:, None] * count
    length = torch.hypot(way[..., 0], way[..., 1])[..., None]
    # Multiplied by the count and divided by the length again, as ImageMagick does: at 30 degrees every other step
    # lies half-way between two pixels, and the rounding decides.
    steps = torch.arange(count, dtype=torch.float64, device=angles.device)[:, None]
    return (steps * way / length - 0.5).ceil_().long()


def _add_up(image: Tensor, path: list[list[int]], weights: tuple[float, ...], out: Tensor) -> None:
    """Add slices of one padded image (C, H, W) in a CPU's memory; steps that round to the same pixel are one."""
    height, width = image.shape[1:]
    taps: dict[tuple[int, int], float] = {}
    for (down, right), weight in zip(path, weights, strict=True):
        if abs(down) >= height or abs(right) >= width:
            break
        taps[down, right] = taps.get((down, right), 0.0) + weight
    downs, rights = zip(*taps, strict=True)
    top, left = -min(downs), -min(rights)  # the first step stays in place: nothing here is negative
    wide = pad(image, (left, max(rights), top, max(downs)), mode="replicate")
    out.zero_()
    for (down, right), weight in taps.items():
        rows, columns = slice(top + down, top + down + height), slice(left + right, left + right + width)
        out.add_(wide[:, rows, columns], alpha=weight)


def _gathered(images: Tensor, steps: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Do the same to a batch on a GPU, where every image has its own direction and nothing may wait for it."""
    count, channels, height, width = images.shape
    flat = images.reshape(count, channels, height * width)
    down, right = steps.abs().unbind(2)  # neither ever shrinks: past the first step outside all are
    inside = ((down < height) & (right < width)).to(images.dtype)[:, :, None, None]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    out = torch.zeros_like(flat)
    for step, weight in enumerate(weights):
        row = (rows + steps[:, step, :1]).clamp_(0, height - 1).mul_(width)
        column = (columns + steps[:, step, 1:]).clamp_(0, width - 1)
        place = (row[:, :, None] + column[:, None]).view(count, 1, height * width)
        out.addcmul_(flat.gather(2, place.expand(-1, channels, -1)), inside[:, step], value=weight)
    return out.view(images.shape)
