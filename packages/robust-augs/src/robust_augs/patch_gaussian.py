"""Patch Gaussian."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._random import integers, normal, uniform


@dataclass(frozen=True, kw_only=True)
class PatchDraws:
    """What `PatchGaussian` draws.

    `top` and `left` are where the square begins, (N,) int64, possibly outside the image; `size` its side, (N,) int64, 0
    where the image stays clean; `sigma` (N,); and `noise`, standard normal numbers (N, C, H, W).
    """

    top: Tensor
    left: Tensor
    size: Tensor
    sigma: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class PatchGaussian:
    """Add Gaussian noise inside one square of every image.

    Lopes et al., "Improving Robustness Without Sacrificing Accuracy with Patch Gaussian Augmentation",
    arXiv:1906.02611, section 3: the centre of the square is drawn uniformly from the image's pixels, so that the square
    may stick out; inside it each value gets N(0, sigma^2), and the result is clipped to [0, 1]. A square of at least
    twice the image's side is Gaussian noise everywhere.

    Overlaps with ImageNet-C, whose first corruption is Gaussian noise: report a score without the noise group as well.

    Args:
        patch_size: side of the square in pixels, at least 1; or the smallest and the largest, between which each image
            draws a whole number.
        sigma: standard deviation in units of [0, 1] pixels, at least 0; or the smallest and the largest, between which
            each image draws.
        probability: of an image to get a square.

    Attributes:
        cifar: squares of 25 pixels, sigma 0.1.
        imagenet: squares of up to 250 pixels, sigma up to 1.

    Raises:
        ValueError: if a size, a sigma or the probability is out of range, or a range is the wrong way round.

    Examples:
        >>> images = torch.full((2, 3, 32, 32), 0.5)
        >>> noisy = PatchGaussian(patch_size=4, sigma=0.1)(images, generator=torch.Generator().manual_seed(0))
        >>> int((noisy != images).any(dim=1).flatten(1).sum(dim=1).max())
        16
    """

    patch_size: int | tuple[int, int] = 25
    sigma: float | tuple[float, float] = 0.1
    probability: float = 1.0

    cifar: ClassVar["PatchGaussian"]
    imagenet: ClassVar["PatchGaussian"]

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        for name in ("patch_size", "sigma"):  # ranges may come as lists, from a file of settings
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        smallest, largest = self._sizes
        if not 1 <= smallest <= largest:
            raise ValueError(f"patch_size must be at least 1, or (smallest, largest), got {self.patch_size}")
        low, high = self._sigmas
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"sigma must be a finite number of at least 0, or (smallest, largest), got {self.sigma}")

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size, self.patch_size)

    @property
    def _sigmas(self) -> tuple[float, float]:
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)

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
    ) -> PatchDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count, _, height, width = shape
        low, high = self._sigmas
        chance, strength = uniform((2, count), generator, device)
        size = integers((count,), *self._sizes, generator, device)
        row = integers((count,), 0, height - 1, generator, device)
        column = integers((count,), 0, width - 1, generator, device)
        return PatchDraws(
            top=row - size // 2,
            left=column - size // 2,
            size=size * (chance < self.probability),
            sigma=low + (high - low) * strength,
            noise=normal(shape, generator, device),
        )

    @torch.no_grad()
    def apply(self, images: Tensor, draws: PatchDraws) -> Tensor:
        """Add noise to `images` as drawn; a pure function of its arguments."""
        floats = as_float(images)
        height, width = images.shape[2:]
        inside = _between(draws.top, draws.size, height)[:, :, None] & _between(draws.left, draws.size, width)[:, None]
        strength = draws.sigma[:, None, None] * inside
        return like(images, torch.addcmul(floats, draws.noise.to(floats), strength[:, None].to(floats)).clamp_(0, 1))


PatchGaussian.cifar = PatchGaussian(patch_size=25, sigma=0.1)
PatchGaussian.imagenet = PatchGaussian(patch_size=(1, 250), sigma=(0.0, 1.0))


def _between(start: Tensor, size: Tensor, length: int) -> Tensor:
    """Tell which positions of an axis lie in start..start + size - 1, (N, length)."""
    positions = torch.arange(length, device=start.device)
    return (positions >= start[:, None]) & (positions < (start + size)[:, None])
