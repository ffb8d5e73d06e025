"""Images under one attack."""

from dataclasses import dataclass
from typing import Any

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.conditions.attack import Attack as Attack
from robust_bench.conditions.attack import attack_label, attack_settings, attacked, check_attack


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Adversarial images, made for the model at hand.

    An image counts as robust when it is right both when clean and under the attack, so images that are wrong when
    clean are not attacked.

    Args:
        attack: e.g. `PGD(threat=Linf(eps=8 / 255), steps=20, restarts=3)`.
        all_images: attack also images that are wrong when clean, and count an image as right when it is right under
            the attack alone. For what is measured on all images, such as the loss; a robust accuracy has False.

    Raises:
        ValueError: if the attack's eps is one number per image: an evaluation has batches of its own.
    """

    attack: Attack
    all_images: bool = False

    def __post_init__(self) -> None:
        check_attack(self.attack)

    @property
    def only_right(self) -> bool:
        """Tell whether images that are wrong when clean are left alone."""
        return not self.all_images

    @property
    def label(self) -> str:
        """Name the attack with its steps and restarts, the norm and eps."""
        return attack_label(self.attack) + (", all images" if self.all_images else "")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the attack's class and all its fields; a threat becomes "norm" and "eps", a function its name."""
        attack = {"kind": "attack", **attack_settings(self.attack)}
        return attack | {"all_images": True} if self.all_images else attack

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack the images and check that they stay inside the threat.

        Raises:
            RuntimeError: if they do not: the accuracy would not belong to this threat.
        """
        return attacked(self.attack, model, images, labels, random)
