"""Sequences of weather and light: snow in a turning wind, water that runs down the lens, growing brightness."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import normal_field
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.sequences.perturbation import Draw, Perturbation, Window
from robust_bench.corruptions.sequences.presets import Steps
from robust_bench.corruptions.snow import blown, fallen
from robust_bench.corruptions.spatter import liquid, watered
from robust_bench.corruptions.weather import brightness


def sample_layer(key: Key, shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Draw a standard normal number per pixel, (N, H, W)."""
    return {"normal": normal_field(key("normal"), shape[1:])}


def _snow(images: Tensor, _window: Window, steps: Steps, draw: Draw) -> Iterator[Tensor]:
    """Let the same flakes be blown by a wind that turns."""
    clean = unit(images)
    flakes = fallen(clean, steps.constant, draw(0))
    for angle in steps.values:
        yield truncate(blown(clean, flakes, torch.full((len(images),), angle), steps.constant))


def _spatter(images: Tensor, _window: Window, steps: Steps, draw: Draw) -> Iterator[Tensor]:
    """Let drops of water run down the lens."""
    mean, deviation, sigma, threshold, strength, kernel = steps.constant
    clean = unit(images)
    normal = draw(0).field("normal", (len(images), *images.shape[2:]))
    layer = torch.threshold_(liquid(normal, mean, deviation, sigma), threshold, 0.0)
    for _ in steps.values:
        yield truncate(watered(clean, layer, strength))
        layer = run_down(layer, kernel)


def run_down(layer: Tensor, kernel: Sequence[float]) -> Tensor:
    """Convolve the columns of a layer (N, H, W) with a kernel, with zeros beyond the edges.

    As `numpy.convolve` does in its mode "same": the kernel's weight at place (length - 1) // 2 stays in its row, those
    after it move down.
    """
    length, height = len(kernel), layer.shape[1]
    above = length // 2
    wide = pad(layer, (0, 0, above, length - 1 - above))
    out = torch.zeros_like(layer)
    for place, weight in enumerate(kernel):
        start = length - 1 - place
        out.add_(wide[:, start : start + height], alpha=weight)
    return out


def _brightness(images: Tensor, _window: Window, steps: Steps, _draw: Draw) -> Iterator[Tensor]:
    """Add to the value V of the HSV colour model, first less than nothing; the middle frame is the image."""
    clean, nothing = unit(images), Draws(count=len(images), fields={})
    for added in steps.values:
        yield truncate(brightness(clean, added, nothing))


WEATHERS = (
    Perturbation(name="snow", make=_snow, sample=sample_layer),
    Perturbation(name="brightness", make=_brightness),
    Perturbation(name="spatter", make=_spatter, sample=sample_layer),
)
