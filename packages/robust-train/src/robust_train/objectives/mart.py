"""MART: misclassified images weigh more."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_train.objectives.objective import (
    Adversarially,
    Context,
    Metrics,
    correct,
    cross_entropy,
    hard,
    widened,
)
from robust_train.settings.require import require_not_negative


@dataclass(frozen=True, kw_only=True)
class MART(Adversarially):
    """The mean of BCE(x', y) + weight KL(p(x) || p(x')) (1 - p_y(x)), where x' is attacked by the cross-entropy.

    Wang, Zou, Yi, Bailey, Ma, Gu, "Improving adversarial robustness requires revisiting misclassified examples", ICLR
    2020, OpenReview rklOg6EFwS. BCE(x', y) = -ln p_y(x') - ln(1 - max over k != y of p_k(x')).
    Gradients flow through the factor 1 - p_y(x) and through p(x) too. The small constants inside of the logarithms and
    the factor are those of the authors' code. The paper's attack is PGD with 10 steps of 0.007 at Linf 0.031, in eval
    mode, from x + 0.001 N(0, 1): `start: near` in a recipe.

    A step costs the attack, and forward and backward passes over x and x': 2 K + 6 passes for K steps.

    The paper knows classes only. With probabilities as labels the cross-entropy takes them as they are; elsewhere y is
    the likeliest class.

    Args:
        attack: makes the images, e.g. `PGD(threat=Linf(eps=8 / 255), steps=10)`.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`; "eval" in the paper.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
        weight: of the divergence, lambda in the paper, >= 0: 5 for its ResNet-18, 6 for its WRN-34-10.
    """

    weight: float = 5.0

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy`, `adversarial_accuracy` and `divergence`."""
        clean, attacked = model(images), model(perturbed)
        log_p = functional.log_softmax(widened(clean), dim=1)
        p, q = log_p.exp(), functional.softmax(widened(attacked), dim=1)
        label = hard(labels)[:, None]
        rival = q.scatter(1, label, -1.0).amax(1)  # the likeliest wrong class
        boosted = cross_entropy(attacked, labels) - torch.log(1.0001 - rival + 1e-12)
        divergence = (p * (log_p - torch.log(q + 1e-12))).sum(1)
        doubt = 1.0000001 - p.gather(1, label)[:, 0]
        metrics = {
            "accuracy": correct(clean, labels),
            "adversarial_accuracy": correct(attacked, labels),
            "divergence": divergence.detach().sum(),
        }
        return boosted + self.weight * divergence * doubt, metrics


@dataclass(frozen=True, kw_only=True)
class MARTSettings:
    """Misclassified images weigh more: Wang et al., ICLR 2020, OpenReview rklOg6EFwS.

    Args:
        name: "mart".
        weight: of the divergence between clean and attacked predictions, lambda in the paper, at least 0.
    """

    attacks: ClassVar[bool] = True

    name: Literal["mart"]
    weight: float

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")

    def build(self, context: Context) -> MART:
        """The objective."""
        return MART(**context.attacking(), weight=self.weight)
