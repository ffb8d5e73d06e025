"""Adversarial training: the attack that is given decides whose."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robust_train.objectives.objective import Adversarially, Context, check_smoothing


@dataclass(frozen=True, kw_only=True)
class Adversarial(Adversarially):
    """The mean cross-entropy of attacked images, and of nothing else.

    With `PGD` it is the training of Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
    2018, arXiv:1706.06083, equation 2.1. With `FGSM(random_start=True, step_size=1.25 * eps)` it is FGSM-RS of Wong,
    Rice, Kolter, "Fast is better than free", ICLR 2020, arXiv:2001.03994, algorithm 3; theirs attacks in training mode
    with moving statistics (`batch_norm="train_moving"`). With `NFGSM` it is N-FGSM of de Jorge et al., "Make some
    noise", NeurIPS 2022, arXiv:2202.01181.

    A step costs the attack and one forward and backward pass; the clean images are not passed through the model, so
    the metrics do not have the clean accuracy.

    Args:
        attack: makes the images, e.g. `PGD(threat=Linf(eps=8 / 255), steps=10)`.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
        label_smoothing: share of the label that is spread over all classes, in [0, 1); in the loss, not in the attack.
    """

    accuracy: ClassVar[str] = "adversarial_accuracy"

    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """The mean cross-entropy of attacked images: PGD, FGSM-RS or N-FGSM training, as the attack is.

    Args:
        name: "adversarial".
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """

    attacks: ClassVar[bool] = True

    name: Literal["adversarial"]
    label_smoothing: float

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)

    def build(self, context: Context) -> Adversarial:
        """The objective."""
        return Adversarial(**context.attacking(), label_smoothing=self.label_smoothing)
