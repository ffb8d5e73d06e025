"""Random smooth maps of colours: the colour transform of PRIME."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_augs._draws import in_blocks
from robust_augs._images import as_float, check_images, like
from robust_augs._random import integers, normal, uniform

LEVELS = 255  # steps between 8-bit values: each of these is a knot of the table, so that no interpolation touches it
KNOTS_PER_WAVE = 32


@dataclass(frozen=True, kw_only=True)
class ColorDraws:
    """What `RandomColor` draws.

    Args:
        cut: (N,) int64, the highest frequency.
        start: (N,) int64, the lowest frequency.
        temperature: (N,), the variance of the coefficients.
        normals: (N, C, K), one standard normal for each frequency from `start` on; those beyond `cut` have no effect.
    """

    cut: Tensor
    start: Tensor
    temperature: Tensor
    normals: Tensor


@dataclass(frozen=True, kw_only=True)
class RandomColor:
    """Map the values of each channel by a smooth random function.

    Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV 2022, arXiv:2112.13547:

        y = clip(x + sum_k b_k * sin(pi * k * x), 0, 1),  b_k ~ N(0, T) per image and channel,

    with cut uniform in {1, ..., cut_max}, T uniform in [0, temperature_max], and k from 1 to cut; or, with a `band`,
    from k0 to min(k0 + band - 1, cut), k0 uniform in {1, ..., cut}.

    Differs from the published code: cut, band and temperature are drawn per image, not per batch, and the sum is
    looked up in a table with cubic interpolation. Its error is below 4e-5 times sum_k |b_k|, and none but rounding at
    the values of 8-bit images.

    Args:
        cut_max: highest frequency, in half waves over [0, 1]; at least 1.
        temperature_max: highest variance of the coefficients, at least 0.
        band: number of frequencies taken together; None takes all up to the cut.

    Attributes:
        cifar: the published settings on CIFAR: all frequencies up to 100, temperatures up to 0.01.
        imagenet: the published settings on ImageNet, the default: bands of 20 up to 500, temperatures up to 0.05.

    Raises:
        ValueError: if a setting is out of its range.

    Examples:
        >>> images = torch.rand(4, 3, 32, 32)
        >>> RandomColor.cifar(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    cut_max: int = 500
    temperature_max: float = 0.05
    band: int | None = 20

    cifar: ClassVar["RandomColor"]
    imagenet: ClassVar["RandomColor"]

    def __post_init__(self) -> None:
        if self.cut_max < 1:
            raise ValueError(f"cut_max must be at least 1, got {self.cut_max}")
        if not (math.isfinite(self.temperature_max) and self.temperature_max >= 0):
            raise ValueError(f"temperature_max must be a finite number of at least 0, got {self.temperature_max}")
        if self.band is not None and self.band < 1:
            raise ValueError(f"band must be at least 1, or None for all frequencies, got {self.band}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Map the colours of `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch; it is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1].
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> ColorDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count, channels = shape[:2]
        cut = integers((count,), 1, self.cut_max, generator, device)
        start = torch.ones_like(cut)
        if self.band is not None:
            # A product below 1 may round to 1, and the start then to cut + 1; the minimum keeps it in range.
            start = torch.minimum(1 + (uniform((count,), generator, device) * cut).long(), cut)
        temperature = uniform((count,), generator, device) * self.temperature_max
        size = min(self.band or self.cut_max, self.cut_max)
        normals = normal((count, channels, size), generator, device)
        return ColorDraws(cut=cut, start=start, temperature=temperature, normals=normals)

    @torch.no_grad()
    def apply(self, images: Tensor, draws: ColorDraws) -> Tensor:
        """Map the colours of `images` as drawn; a pure function of its arguments."""
        channels, *pixels = images.shape[1:]
        table = (LEVELS + 1) * self._steps
        return in_blocks(self._map, images, draws, numbers=channels * (6 * math.prod(pixels) + 10 * table))

    @property
    def _steps(self) -> int:
        """Points of the table to an 8-bit level."""
        return max(4, math.ceil(KNOTS_PER_WAVE * self.cut_max / (2 * LEVELS)))

    def _map(self, images: Tensor, draws: ColorDraws) -> Tensor:
        floats = as_float(images)
        offsets = torch.arange(draws.normals.shape[-1], device=floats.device)
        # Without a band all images have the same frequencies, and their sines are needed only once.
        frequencies = offsets + (draws.start[:, None] if self.band else torch.ones_like(draws.start[:1, None]))
        below_the_cut = offsets + draws.start[:, None] <= draws.cut[:, None]
        deviation = draws.temperature.to(floats.dtype).sqrt()[:, None] * below_the_cut
        coefficients = draws.normals * deviation.unsqueeze(1)
        shift = interpolate(sine_table(coefficients, frequencies, self._steps), floats, LEVELS * self._steps)
        return like(images, shift.add_(floats).clamp_(0, 1))


RandomColor.cifar = RandomColor(cut_max=100, temperature_max=0.01, band=None)
RandomColor.imagenet = RandomColor(cut_max=500, temperature_max=0.05, band=20)


def sine_table(coefficients: Tensor, frequencies: Tensor, steps: int) -> Tensor:
    """Sum `coefficients` (N, C, K) times sin(pi * `frequencies` * x) at x = -h, 0, h, ...: (N, C, 256 * steps).

    h = 1 / (255 * `steps`), so that the points reach beyond x = 1 if there are more than 2 steps. `frequencies` are
    whole numbers (N, K), or (1, K) where all images share them. A point is the sum of a coarse and a fine step, so by
    sin(a + b) = sin(a) * cos(b) + cos(a) * sin(b) all points are one product of two thin matrices.
    """
    count, channels, _ = coefficients.shape
    points = torch.arange(max(LEVELS + 1, steps), device=frequencies.device)
    coarse = angles(frequencies, points[: LEVELS + 1], LEVELS).transpose(1, 2).to(coefficients.dtype)
    fine = angles(frequencies, points[:steps] - 1, LEVELS * steps).to(coefficients.dtype)
    left = torch.cat([coarse.sin(), coarse.cos()], dim=2)
    waves = torch.cat([fine.cos(), fine.sin()], dim=1)
    right = torch.cat([coefficients, coefficients], dim=2).transpose(1, 2).unsqueeze(3) * waves.unsqueeze(2)
    tables = (left @ right.flatten(2)).view(count, LEVELS + 1, channels, steps)
    return tables.transpose(1, 2).flatten(2)


def angles(frequencies: Tensor, points: Tensor, per_unit: int) -> Tensor:
    """The angles pi * `frequencies` * `points` / `per_unit`, the last two whole numbers: (..., frequency, point).

    Whole turns are taken off while all numbers are whole: of 1500 radians float32 keeps few digits.
    """
    half_turns = frequencies.unsqueeze(-1) * points % (2 * per_unit)
    return half_turns.double() * (math.pi / per_unit)


def interpolate(tables: Tensor, values: Tensor, per_unit: int) -> Tensor:
    """Look up `values` (N, C, H, W) in `tables` (N, C, points) of their images and channels.

    The tables begin one point before 0 and have `per_unit` points to the unit. Between two points runs the cubic
    polynomial through these and the two around them.
    """
    before, left, right, after = (tables[..., i : tables.shape[-1] - 3 + i] for i in range(4))
    square = (before + right) / 2 - left
    cube = (after - before) / 6 + (left - right) / 2
    linear = right - left - square - cube
    pieces = [piece.flatten() for piece in (cube, square, linear, left)]

    position = values * per_unit
    # Four-byte indices are twice as fast. Where values are not checked (on a GPU) the clamp avoids a crash.
    index = position.int().clamp_(0, per_unit)
    first = torch.arange(0, linear.numel(), linear.shape[-1], dtype=torch.int32, device=index.device)
    index = index.add_(first.view(*tables.shape[:2], 1, 1)).flatten()
    position = position.frac_().flatten()
    result = pieces[0].index_select(0, index)
    for piece in pieces[1:]:
        result = piece.index_select(0, index).addcmul_(result, position)
    return result.view_as(values)
