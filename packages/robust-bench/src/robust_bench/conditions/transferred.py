"""Images under an attack on another model."""

import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.conditions.attack import Attack, attack_label, attack_settings, attacked, check_attack
from robust_bench.conditions.guest import Guests
from robust_bench.fingerprint import model_hash


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """Adversarial images that were made on a source model and are shown to the model at hand: a black-box attack.

    Orhan, "Robustness properties of Facebook's ResNeXt WSL models", 2019, arXiv:1907.07640. Every image is attacked,
    and counts as right when the model at hand is right on what the source made of it, whatever it said of the clean
    image.

    Args:
        attack: on the source, e.g. `robust_attacks.TransferAttack(relative_eps=0.04)`, that of the paper.
        source_model: the source, with its normalisation inside. Of another device or in training mode it is copied.
        source_name: its name in tables.
        guests: copies of the source on other devices, which conditions with the same source may share.

    Raises:
        ValueError: if the attack's eps is one number per image.
    """

    attack: Attack
    source_model: Model = field(repr=False)
    source_name: str
    only_right: ClassVar[bool] = False
    guests: Guests = field(default_factory=Guests, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_attack(self.attack)

    @property
    def label(self) -> str:
        """Name the attack and the source."""
        return f"{attack_label(self.attack)}, made on {self.source_name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the attack, and the source with the sha256 of its weights.

        Raises:
            TypeError: if the source is a function that could not be recognised again.
        """
        source = {"source": self.source_name, "source_sha256": self._source_hash}
        return {"kind": "transfer", **attack_settings(self.attack), **source}

    def change(self, _model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack the images on the source and check that they stay inside the threat.

        Raises:
            RuntimeError: if they do not.
        """
        source = self.guests.of({self.source_name: self.source_model}, images.device)[self.source_name]
        return attacked(self.attack, source, images, labels, random)

    @functools.cached_property
    def _source_hash(self) -> str:
        return model_hash(self.source_model)
