"""Adversarial training: the attack that is given decides whose."""

from dataclasses import dataclass

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn
from torch.nn import functional

from robust_train.perturb import Attack, perturb
from robust_train.settings import BatchNorm


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """The mean cross-entropy of attacked images, and of nothing else.

    With `PGD` it is the training of Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
    2018, arXiv:1706.06083, equation 2.1. With `FGSM(random_start=True, step_size=1.25 * eps)` it is FGSM-RS of Wong,
    Rice, Kolter, "Fast is better than free", ICLR 2020, arXiv:2001.03994, algorithm 3; theirs attacks in training mode
    with moving statistics (`batch_norm="train_moving"`).

    A step costs the attack and one forward and backward pass; the clean images are not passed through the model, so
    the metrics do not have the clean accuracy.

    Args:
        attack: makes the images, e.g. `PGD(threat=Linf(eps=8 / 255), steps=10)`.
        label_smoothing: share of the label that is spread over all classes, in [0, 1); in the loss, not in the attack.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
    """

    attack: Attack
    label_smoothing: float = 0.0
    batch_norm: BatchNorm = "eval"
    precision: torch.dtype | None = None

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, random: ImageRandom | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Both halves after one another: the loss (scalar) and the metrics."""
        return self.loss(model, images, self.perturb(model, images, labels, random), labels)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, random: ImageRandom | None = None) -> Tensor:
        """Attack `images` (N, C, H, W) in [0, 1] with `labels` (N,); no gradient reaches the weights."""
        return perturb(self.attack, model, images, labels, random, batch_norm=self.batch_norm, precision=self.precision)

    def loss(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - the protocol of objectives
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (scalar) of `perturbed`, and detached sums over the images: loss, adversarial_accuracy."""
        logits = model(perturbed)
        losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        correct = (logits.detach().argmax(1) == labels).sum()
        return losses.mean(), {"loss": losses.detach().sum(), "adversarial_accuracy": correct}
