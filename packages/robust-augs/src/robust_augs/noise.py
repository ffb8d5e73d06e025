"""Gaussian noise training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._random import normal, uniform


@dataclass(frozen=True, kw_only=True)
class NoiseDraws:
    """What `GaussianNoise` draws: one sigma per image (N,), 0 where it stays clean, and normals (N, C, H, W)."""

    sigma: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Add Gaussian noise to a share of the images of each batch (GNT).

    Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020,
    arXiv:2001.06057, section 3: noise of N(0, sigma^2) per pixel and channel, clipped to [0, 1].

    Overlaps with ImageNet-C, which has Gaussian and speckle noise among its corruptions: report a score without the
    noise group as well.

    Args:
        sigma: standard deviation in units of [0, 1] pixels, at least 0; or a sequence of several, kept as a tuple,
            from which each image draws one with equal probability.
        share: of the images in a batch that get noise. Of N images it is share * N, rounded up or down at random so
            that the share is right on average, also for batches of one.
        speckle: multiply the noise by the image: x + x * z.

    Attributes:
        single: the published training with one sigma of 0.5.
        multiple: the published training with one of 0.08, 0.12, 0.18, 0.26 and 0.38 per image.
        speckled: the published training with speckle noise of one of 0.15, 0.2, 0.35, 0.45 and 0.6 per image.

    Raises:
        TypeError: if `sigma` is neither a number nor a sequence of them.
        ValueError: if a sigma is negative or not finite, there is none, or `share` is outside [0, 1].

    Examples:
        >>> images = torch.full((4, 1, 8, 8), 0.5)
        >>> noisy = GaussianNoise(sigma=0.1, share=0.5)(images, generator=torch.Generator().manual_seed(0))
        >>> int((noisy != images).flatten(1).any(1).sum())
        2
    """

    sigma: float | Sequence[float] = 0.5
    share: float = 0.5
    speckle: bool = False

    single: ClassVar["GaussianNoise"]
    multiple: ClassVar["GaussianNoise"]
    speckled: ClassVar["GaussianNoise"]

    def __post_init__(self) -> None:
        check_share("share", self.share)
        object.__setattr__(self, "sigma", _numbers(self.sigma))
        if not self._sigmas or not all(math.isfinite(s) and s >= 0 for s in self._sigmas):
            raise ValueError(f"sigma must be a finite number of at least 0, or several of them, got {self.sigma}")

    @property
    def _sigmas(self) -> tuple[float, ...]:
        return (self.sigma,) if isinstance(self.sigma, float | int) else tuple(self.sigma)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Add noise to `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

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
    ) -> NoiseDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count = shape[0]
        whole = math.floor(self.share * count)
        one_more = uniform((1,), generator, device) < self.share * count - whole
        # Ranks of random numbers choose a set of images of given size without a loop or a wait for the device.
        noisy = uniform((count,), generator, device).argsort().argsort() < whole + one_more.long()
        which = (uniform((count,), generator, device) * len(self._sigmas)).long().clamp(max=len(self._sigmas) - 1)
        sigma = torch.tensor(self._sigmas, device=device)[which] * noisy
        return NoiseDraws(sigma=sigma, noise=normal(shape, generator, device))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: NoiseDraws) -> Tensor:
        """Add noise to `images` as drawn; a pure function of its arguments."""
        floats = as_float(images)
        noise = draws.sigma.view(-1, 1, 1, 1) * draws.noise
        return like(images, (floats + (floats * noise if self.speckle else noise)).clamp(0, 1))


def _numbers(sigma: Any) -> float | tuple[float, ...]:
    """One number as a float, several as a tuple of floats."""
    try:
        if isinstance(sigma, str):
            raise TypeError("a string is a sequence as well, but not of numbers")
        return float(sigma) if isinstance(sigma, Real) else tuple(float(value) for value in sigma)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sigma must be a number, such as 0.5, or a sequence of them, got {sigma!r}") from error


GaussianNoise.single = GaussianNoise(sigma=0.5, share=0.5)
GaussianNoise.multiple = GaussianNoise(sigma=(0.08, 0.12, 0.18, 0.26, 0.38), share=0.5)
GaussianNoise.speckled = GaussianNoise(sigma=(0.15, 0.2, 0.35, 0.45, 0.6), share=0.5, speckle=True)
