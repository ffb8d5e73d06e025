"""Adversarial logit pairing, for comparison only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robust_train.objectives.objective import (
    Adversarially,
    Context,
    Metrics,
    check_smoothing,
    correct,
    cross_entropy,
    widened,
)
from robust_train.settings.require import require, require_not_negative


@dataclass(frozen=True, kw_only=True)
class ALP(Adversarially):
    """The mean of clean CE(x, y) + (1 - clean) CE(x', y) + weight |z(x) - z(x')|^2 / K.

    Kannan, Kurakin, Goodfellow, "Adversarial logit pairing", 2018, arXiv:1803.06373.

    Warning: for comparison only. Engstrom, Ilyas, Athalye, "Evaluating and understanding the robustness of adversarial
    logit pairing", 2018, arXiv:1807.10272, took the published ImageNet model to an accuracy of 0.6 %: the
    squared distance flattens the loss around the images, so weak attacks overrate such models. Judge them with strong
    attacks of many steps and restarts, and with those without gradients.

    A step costs the attack, and forward and backward passes over x and x': 2 K + 6 passes for K steps.

    As in the authors' code, the cross-entropy is the mean over clean and attacked images alike (`clean=0.5`, their
    mixed batches), and the squared distance is the mean over the K classes, with a weight of 0.5. Their attack aims at
    the least likely or a random class, the one here is what you give; theirs passes x and x' as one batch, which
    matters for batch norm.

    Args:
        attack: makes the images, e.g. `PGD(threat=Linf(eps=8 / 255), steps=10)`.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
        weight: of the squared distance of the logits, >= 0.
        clean: share of the clean images in the cross-entropy, in [0, 1].
        label_smoothing: share of the label that is spread over all classes, in [0, 1); in the loss, not in the attack.
    """

    weight: float = 0.5
    clean: float = 0.5
    label_smoothing: float = 0.0

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy`, `adversarial_accuracy` and `distance` of the logits."""
        clean, attacked = widened(model(images)), widened(model(perturbed))
        distance = (clean - attacked).square().mean(1)
        entropies = [cross_entropy(logits, labels, self.label_smoothing) for logits in (clean, attacked)]
        metrics = {
            "accuracy": correct(clean, labels),
            "adversarial_accuracy": correct(attacked, labels),
            "distance": distance.detach().sum(),
        }
        return self.clean * entropies[0] + (1 - self.clean) * entropies[1] + self.weight * distance, metrics


@dataclass(frozen=True, kw_only=True)
class ALPSettings:
    """Logits under attack paired with clean ones, for comparison only, since it was broken (arXiv:1807.10272).

    Args:
        name: "alp".
        weight: of the squared distance of the logits (mean over the classes), at least 0.
        clean: share of the clean images in the cross-entropy, in [0, 1]; 0.5 as published.
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """

    attacks: ClassVar[bool] = True

    name: Literal["alp"]
    weight: float
    clean: float
    label_smoothing: float

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")
        require(0 <= self.clean <= 1, f"clean must be a share in [0, 1], got {self.clean}")
        check_smoothing(self.label_smoothing)

    def build(self, context: Context) -> ALP:
        """The objective."""
        return ALP(**context.attacking(), weight=self.weight, clean=self.clean, label_smoothing=self.label_smoothing)
