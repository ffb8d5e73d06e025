"""Images under the same attack from several random starts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from torch import Tensor
from torch.nn import functional

from robust_bench._checks import Model, check_logits
from robust_bench.conditions.attack import Attack, attack_label, attack_settings, attacked, check_attack
from robust_bench.conditions.reseeded import reseeded
from robust_bench.records import Records


def loss_column(start: int) -> str:
    """Name the further column of the losses after a start, counted from 0."""
    return f"loss_{start}"


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Attack every image several times, each from a random start of its own, and keep the loss that each run reaches.

    Debenedetti, Sehwag & Mittal, "A Light Recipe to Train Robust Vision Transformers", SaTML 2023, arXiv:2209.07399,
    section V-A. An image counts as right when it is right when clean and after every start; prediction and confidence
    are those of the start with the largest loss. The first start is that of `Attacked`.

    Args:
        attack: with a random start, e.g. `PGD(threat=Linf(eps=4 / 255), steps=10, step_size=0.6 / 255)`.
        starts: how many.

    Raises:
        ValueError: if `starts` is not at least 1, several would all be the same, or eps is one number per image.
    """

    attack: Attack
    starts: int = 3
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_attack(self.attack)
        if self.starts < 1:
            raise ValueError(f"starts must be at least 1, got {self.starts}")
        if self.starts > 1 and not getattr(self.attack, "random_start", True):
            raise ValueError(f"{self.starts} starts of an attack without random_start are the same: set it to True")

    @property
    def label(self) -> str:
        """Name the attack and the starts."""
        return f"{attack_label(self.attack)}, {self.starts} start{'s' if self.starts > 1 else ''}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the attack and the starts."""
        return {"kind": "repeated attack", **attack_settings(self.attack), "starts": self.starts}

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack the images from the first start."""
        return attacked(self.attack, model, images, labels, random)

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Records:
        """Attack the images from every start.

        Raises:
            RuntimeError: if they leave the threat.
        """
        with torch.no_grad():
            right = check_logits(model(images), images, labels).argmax(dim=1) == labels
        logits: list[Tensor] = []
        for start in range(self.starts):
            adversarial = attacked(self.attack, model, images, labels, reseeded(random, start))
            with torch.no_grad():
                logits.append(check_logits(model(adversarial), images, labels).float())
        every = torch.stack(logits)
        losses = torch.stack([functional.cross_entropy(each, labels, reduction="none") for each in logits])
        worst = every[losses.argmax(dim=0), torch.arange(len(images), device=every.device)]
        return Records.of(
            worst,
            labels,
            right=right & (every.argmax(dim=2) == labels).all(dim=0),
            more={loss_column(start): column for start, column in enumerate(losses)},
        )
