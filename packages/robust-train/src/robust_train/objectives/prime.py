"""Training on images of PRIME."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_augs import PRIME
from torch import Tensor, nn

from robust_train.objectives.augmented import Augmenting, augmented_views, consistent_losses
from robust_train.objectives.objective import Context, Metrics
from robust_train.settings import require


@dataclass(frozen=True, kw_only=True)
class PRIMETraining(Augmenting):
    """The cross-entropy of images that PRIME made, or that of clean images with the consistency of AugMix.

    Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV 2022, arXiv:2112.13547:

        loss = CE(PRIME(x), y)                              on ImageNet, with `consistency=0`,
        loss = CE(x, y) + 12 JS(x, PRIME(x), PRIME(x))      on CIFAR, with two independent draws.

    One forward and backward pass of the images, or of three times the images.

    Args:
        prime: makes the images. Crop and flip before, in the data.
        consistency: weight of the divergence, at least 0; 0 trains on the augmented images alone.
    """

    prime: PRIME = PRIME.imagenet
    consistency: float = 0.0

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented images (N, C, H, W), or the images and two augmented views of each: (N, 3, C, H, W)."""
        if self.consistency == 0:
            return self.prime(images, generator=generator)
        return augmented_views(images, self.prime, generator)

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy` of the clean images and `divergence`, or `augmented_accuracy`."""
        if self.consistency == 0:
            return super().losses(model, images, perturbed, labels)
        return consistent_losses(model, perturbed, labels, self.consistency)


@dataclass(frozen=True, kw_only=True)
class PRIMESettings:
    """The cross-entropy of images that PRIME made, or that of clean images with the consistency of AugMix.

    Args:
        name: "prime".
        primitives: strength of deformations, colours and filters: the published ones for "cifar" or "imagenet".
        width: number of chains, 3 in the paper.
        depth: steps per chain; -1 draws 1, 2 or 3 for each.
        consistency: weight of the divergence, at least 0: 12 for CIFAR in the paper, and 0 for ImageNet, which trains
            on the augmented images alone.
    """

    attacks: ClassVar[bool] = False

    name: Literal["prime"]
    primitives: Literal["cifar", "imagenet"]
    width: int
    depth: int
    consistency: float

    def __post_init__(self) -> None:
        self._prime()
        require(self.consistency >= 0, f"consistency must not be negative, got {self.consistency}")

    def build(self, _: Context) -> PRIMETraining:
        """The objective."""
        return PRIMETraining(prime=self._prime(), consistency=self.consistency)

    def _prime(self) -> PRIME:
        published = PRIME.cifar if self.primitives == "cifar" else PRIME.imagenet
        return dataclasses.replace(published, width=self.width, depth=self.depth)
