"""Gaussian noise training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_augs import GaussianNoise
from torch import Tensor

from robust_train.objectives.augmented import Augmenting
from robust_train.objectives.objective import Context


@dataclass(frozen=True, kw_only=True)
class GNT(Augmenting):
    """The cross-entropy of images of which half are noisy.

    Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020,
    arXiv:2001.06057, section 3.1. A step costs what a plain one does. The published training starts from weights that
    were trained without noise.

    Args:
        noise: adds the noise; `GaussianNoise.single`, `.multiple` and `.speckled` are the published ones.
    """

    noise: GaussianNoise = GaussianNoise.single

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images (N, C, H, W), a share of them noisy."""
        return self.noise(images, generator=generator)


@dataclass(frozen=True, kw_only=True)
class GNTSettings:
    """The cross-entropy of images of which a share is noisy.

    Args:
        name: "gnt".
        sigma: standard deviations of the noise in units of [0, 1] pixels, from which each noisy image draws one.
        share: of the images in a batch that get noise, in [0, 1], 0.5 in the paper.
        speckle: multiply the noise by the image.
    """

    attacks: ClassVar[bool] = False

    name: Literal["gnt"]
    sigma: tuple[float, ...]
    share: float
    speckle: bool

    def __post_init__(self) -> None:
        self._noise()

    def build(self, _: Context) -> GNT:
        """The objective."""
        return GNT(noise=self._noise())

    def _noise(self) -> GaussianNoise:
        return GaussianNoise(sigma=self.sigma, share=self.share, speckle=self.speckle)
