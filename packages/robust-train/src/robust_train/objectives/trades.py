"""TRADES: a clean loss, and the predictions near each image kept close to the one at the image."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn

from robust_train.objectives.divergence import kl_divergence
from robust_train.objectives.objective import Adversarially, Context, Metrics, check_smoothing, correct, cross_entropy
from robust_train.perturb import FULL, Strength, attack_mode
from robust_train.settings.require import require_not_negative


@dataclass(frozen=True, kw_only=True)
class TRADES(Adversarially):
    """The mean of CE(x, y) + beta KL(p(x) || p(x')), where x' is attacked to make the same divergence large.

    Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically principled trade-off between robustness and accuracy",
    ICML 2019, arXiv:1901.08573 (beta is their 1 / lambda). Gradients flow through p(x) too. Their attack is PGD with 10
    steps of 0.007 at Linf 0.031, in eval mode, from x + 0.001 N(0, 1): `start: near` in a recipe.

    A step costs the attack, a forward pass for p(x), and forward and backward passes over x and x': 2 K + 7 passes for
    K steps. The attack's p(x) is computed once, in the attack's mode of batch norm and in the dtype of the weights, as
    is the first step of the attack in mixed precision: close to x the divergence is a small difference of large
    numbers, whose gradient half precision does not have.

    The authors' code computes p(x) anew in every step, with the same result; leaves the first iterate outside of the
    box; and in L2 clips to the box before it scales back to the ball, where the attacks here project onto both, and
    replaces a gradient of zero by a random direction. It also passes x twice in the outer step, see
    `reference_batch_norm`.

    Args:
        attack: makes the images; its loss is replaced by the divergence. It must keep the whole batch together, as
            `PGD` without restarts does.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`; "eval" in the paper.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
        beta: weight of the divergence, >= 0; 6 in the paper's code.
        label_smoothing: share of the label that is spread over all classes in the clean loss, in [0, 1).
        reference_batch_norm: take the outer p(x) from a second forward pass over x, as the authors' code does: the
            value is the same, and running statistics move three times per step instead of twice. It costs 3 passes.
    """

    beta: float = 6.0
    label_smoothing: float = 0.0
    reference_batch_norm: bool = False

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,
    ) -> Tensor:
        """Attack `images` (N, C, H, W) in [0, 1] so that their predictions leave those of the clean images.

        Raises:
            ValueError: if the attack leaves images out on its way.
        """
        if strength.radius == 0:
            return images
        with attack_mode(model, self.batch_norm), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            reference = model(images)

        def divergence(logits: Tensor, _: Tensor) -> Tensor:
            if len(logits) != len(reference):
                raise ValueError(
                    f"the attack looks at {len(logits)} of {len(reference)} images: TRADES compares each with its "
                    "clean prediction, so use an attack that keeps the batch together, as PGD without restarts"
                )
            return kl_divergence(reference, logits)

        return self._attacked(model, images, labels, random, strength, loss=divergence, exact_passes=1)

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy`, `adversarial_accuracy` and `divergence`."""
        clean = model(images)
        attacked = model(perturbed)
        reference = model(images) if self.reference_batch_norm else clean
        divergence = kl_divergence(reference, attacked)
        metrics = {
            "accuracy": correct(clean, labels),
            "adversarial_accuracy": correct(attacked, labels),
            "divergence": divergence.detach().sum(),
        }
        return cross_entropy(clean, labels, self.label_smoothing) + self.beta * divergence, metrics


@dataclass(frozen=True, kw_only=True)
class TRADESSettings:
    """A clean loss, and predictions under attack kept close to it: Zhang et al., ICML 2019, arXiv:1901.08573.

    Args:
        name: "trades".
        beta: weight of the divergence, at least 0; 6 in the paper's code.
        label_smoothing: share of the label that is spread over all classes in the clean loss, in [0, 1).
        reference_batch_norm: pass the clean images twice, as the authors' code does, which moves the running statistics
            of batch norms once more.
    """

    attacks: ClassVar[bool] = True

    name: Literal["trades"]
    beta: float
    label_smoothing: float
    reference_batch_norm: bool

    def __post_init__(self) -> None:
        require_not_negative(self, "beta")
        check_smoothing(self.label_smoothing)

    def build(self, context: Context) -> TRADES:
        """The objective."""
        return TRADES(
            **context.attacking(),
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            reference_batch_norm=self.reference_batch_norm,
        )
