"""AugMix with its Jensen-Shannon consistency."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_augs import AugMix
from torch import Tensor, nn

from robust_train.objectives.augmented import Augmenting, augmented_views, consistent_losses
from robust_train.objectives.objective import Context, Metrics
from robust_train.settings import require


@dataclass(frozen=True, kw_only=True)
class AugMixJSD(Augmenting):
    """The cross-entropy of the clean images, and how much their predictions change under AugMix.

    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020,
    arXiv:1912.02781, equation 3: with p of the clean image and of two augmented views,

        loss = CE(p_clean, y) + 12 JS(p_clean, p_1, p_2).

    One forward and backward pass of three times the images, which batch norms see together, as in the published code.

    Args:
        augmix: makes the views. Crop and flip before, in the data.
        consistency: weight of the divergence, at least 0.
    """

    augmix: AugMix = AugMix.cifar
    consistency: float = 12.0

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images (N, C, H, W) and two augmented views of each: (N, 3, C, H, W)."""
        return augmented_views(images, self.augmix, generator)

    def losses(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - the first of the views
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy` of the clean images and `divergence`."""
        return consistent_losses(model, perturbed, labels, self.consistency)


@dataclass(frozen=True, kw_only=True)
class AugMixJSDSettings:
    """The cross-entropy of the clean images, and how much their predictions change under AugMix.

    Args:
        name: "augmix_jsd".
        severity: the largest strength of an operation, in [0.1, 10]; published are 3 for CIFAR and 1 for ImageNet.
        width: number of chains, 3 in the paper.
        depth: operations per chain; -1 draws 1, 2 or 3 for each.
        alpha: of the Dirichlet and Beta distributions of the weights, 1 in the paper.
        all_ops: use operations that overlap with ImageNet-C as well.
        consistency: weight of the divergence, at least 0, 12 in the paper.
    """

    attacks: ClassVar[bool] = False

    name: Literal["augmix_jsd"]
    severity: float
    width: int
    depth: int
    alpha: float
    all_ops: bool
    consistency: float

    def __post_init__(self) -> None:
        self._augmix()
        require(self.consistency >= 0, f"consistency must not be negative, got {self.consistency}")

    def build(self, _: Context) -> AugMixJSD:
        """The objective."""
        return AugMixJSD(augmix=self._augmix(), consistency=self.consistency)

    def _augmix(self) -> AugMix:
        return AugMix(
            severity=self.severity, width=self.width, depth=self.depth, alpha=self.alpha, all_ops=self.all_ops
        )
