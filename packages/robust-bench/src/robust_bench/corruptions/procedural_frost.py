"""Made textures of frost on a window: grains of ice needles.

The published photographs of frost have no clear licence, so these stand in for them. Five textures share their mean
colours, their deviations and the fall of their power spectrum; nothing else is taken from them.
"""

import functools
import math

import torch
from robust_attacks import ImageRandom
from torch import Tensor
from torch.nn.functional import interpolate

from robust_bench.corruptions.fields import fine_uniform_field, normal_field

NAME = "procedural-v1"
"""Goes into results; whatever changes a pixel of the textures changes this name."""

_SIZE = (480, 720)
_COLOURS = ((78, 149, 166), (201, 205, 214), (201, 205, 214), (138, 153, 165), (112, 123, 135))  # mean red, green, blue
_DEVIATIONS = (17, 21, 21, 27, 41)  # in grey levels
_FALL = 1.9  # exponent with which the power falls as the frequency rises
_WAYS = 7  # in which the needles of a grain may lie
_SLIM = 0.12  # deviation of a needle's direction, in radians
_GRAIN = 16  # side of the squares that a grain is made of, in pixels


@functools.cache
def procedural_frost() -> tuple[Tensor, ...]:
    """Make the textures, uint8 (3, 480, 720) each: always the same five; it takes about a second."""
    random = ImageRandom(0, torch.arange(len(_COLOURS)))
    keys = {purpose: random.keys(f"{NAME}/{purpose}") for purpose in ("needles", "grains", "turn")}
    textures = []
    for index, (colour, deviation) in enumerate(zip(_COLOURS, _DEVIATIONS, strict=True)):
        relief = _relief(*(keys[purpose][index : index + 1] for purpose in ("needles", "grains", "turn")))
        levels = torch.tensor(colour, dtype=torch.float64)[:, None, None] + deviation * relief
        textures.append(levels.round_().clamp_(0, 255).to(torch.uint8))
    return tuple(textures)


def _relief(needles: Tensor, grains: Tensor, turn: Tensor) -> Tensor:
    """Give a texture's relief, (480, 720) with mean 0 and deviation 1, from three keys (1,)."""
    rows, columns, radius = _frequencies()
    noise = torch.fft.rfft2(normal_field(needles, _SIZE)[0].double())
    ways = (torch.arange(_WAYS) + fine_uniform_field(turn, ())) * (math.pi / _WAYS)
    angle = torch.atan2(rows, columns) - ways[:, None, None]
    angle = torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2
    wedges = torch.exp(-((angle / _SLIM) ** 2) / 2) / radius.clamp(min=1.0).sqrt()
    lines = torch.fft.irfft2(noise * wedges, s=_SIZE)
    lines /= lines.std(dim=(1, 2), keepdim=True)
    chosen = torch.gather(lines, 0, _grain_map(grains)[None])[0]
    return _with_falling_power(torch.exp(-chosen.abs()))  # bright creases where a line crosses zero


def _grain_map(key: Tensor) -> Tensor:
    """Share the picture out among the ways, int64 (480, 720): each gets where its own smooth noise is the largest."""
    coarse = (_WAYS, _SIZE[0] // _GRAIN, _SIZE[1] // _GRAIN)
    noise = normal_field(key, coarse).double()
    return interpolate(noise, size=_SIZE, mode="bicubic")[0].argmax(dim=0)


def _with_falling_power(relief: Tensor) -> Tensor:
    """Set the mean power at every whole radius of the spectrum to a power of it, the mean to 0, the deviation to 1."""
    radius = _frequencies()[2]
    ring = radius.round().long().view(-1)
    spectrum = torch.fft.rfft2(relief)
    total = torch.zeros(int(ring.max()) + 1, dtype=torch.float64)
    total.index_add_(0, ring, spectrum.abs().square_().view(-1))
    power = total / torch.bincount(ring).clamp(min=1)
    gain = radius.clamp(min=1.0) ** (-_FALL / 2) / power[ring].view(radius.shape).sqrt()
    gain[0, 0] = 0.0
    out: Tensor = torch.fft.irfft2(spectrum * gain, s=_SIZE)
    return out / out.std()


def _frequencies() -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies of `rfft2` in cycles per height: down, across, and their length."""
    height, width = _SIZE
    rows = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, 1 / height, dtype=torch.float64)
    return rows, columns, torch.hypot(rows, columns)
