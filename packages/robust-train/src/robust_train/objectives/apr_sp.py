"""Amplitude-phase recombination of single images and of pairs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_augs import APRPair, APRSingle
from torch import Tensor, nn

from robust_train.objectives.augmented import Augmenting, logits_of_views
from robust_train.objectives.objective import Context, Metrics, correct, cross_entropy


@dataclass(frozen=True, kw_only=True)
class APRSP(Augmenting):
    """The cross-entropies of images with amplitudes of other views of themselves, and then of other images too.

    Chen et al., "Amplitude-Phase Recombination: Rethinking Robustness of Convolutional Neural Networks in Frequency
    Domain", ICCV 2021, arXiv:2108.08487, section 3.2: with s = APR-S(x) and p = APR-P(s),

        loss = CE(s, y) + CE(p, y), in one forward pass of twice the images.

    The two are added as in the published code, not averaged, so a learning rate means what it means there. Images take
    amplitudes from their own part of the batch where it is cut in several (`accumulate`, several processes).

    Args:
        single: APR-S. Crop and flip before, in the data; the published code flips after it.
        pair: APR-P.
    """

    single: APRSingle = APRSingle.cifar
    pair: APRPair = APRPair.cifar

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Both versions of the images (N, C, H, W): (N, 2, C, H, W)."""
        single = self.single(images, generator=generator)
        return torch.stack([single, self.pair(single, generator=generator)], dim=1)

    def losses(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - the clean images are not looked at
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `single_accuracy` and `pair_accuracy`."""
        single, pair = logits_of_views(model, perturbed)
        metrics = {"single_accuracy": correct(single, labels), "pair_accuracy": correct(pair, labels)}
        return cross_entropy(single, labels) + cross_entropy(pair, labels), metrics


@dataclass(frozen=True, kw_only=True)
class APRSPSettings:
    """The cross-entropies of images with amplitudes of other views of themselves, and then of other images too.

    Args:
        name: "apr_sp".
        severity: of the operations that make other views, in [0.1, 10], 3 in the paper.
        wrap: take levels beyond the range modulo 256, as the published code does; false clips them.
        probability: of APR-P, in [0, 1]; published are 0.6 for CIFAR and 0.5 for ImageNet.
        per_batch: decide once for all images of a batch, as published, and not for every image.
    """

    attacks: ClassVar[bool] = False

    name: Literal["apr_sp"]
    severity: float
    wrap: bool
    probability: float
    per_batch: bool

    def __post_init__(self) -> None:
        self._objective()

    def build(self, _: Context) -> APRSP:
        """The objective."""
        return self._objective()

    def _objective(self) -> APRSP:
        single = APRSingle(severity=self.severity, wrap=self.wrap)
        return APRSP(single=single, pair=APRPair(probability=self.probability, per_batch=self.per_batch))
