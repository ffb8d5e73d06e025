"""Perturbations, looked at as images."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom, Linf
from torch import Tensor, nn
from torch.nn import functional

from robust_bench._checks import Model, check_logits
from robust_bench.conditions.attack import Attack, attack_label, attack_settings, attacked, check_attack, fixed_threat
from robust_bench.conditions.guest import Guests
from robust_bench.fingerprint import model_hash
from robust_bench.records import Records


def judged_column(judge: str) -> str:
    """Name the further column of the class that a judge gives the perturbations."""
    return f"judged by {judge}"


class Resized(nn.Module):
    """A judge that takes images of another size: they are resized to it, bilinear with antialiasing.

    Args:
        model: the judge.
        size: side of the square that it takes, in pixels.
    """

    def __init__(self, model: Model, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.train(getattr(model, "training", False))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W) of any size."""
        resized = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return self.model(resized.clamp(0.0, 1.0))

    def extra_repr(self) -> str:
        """Give the size."""
        return f"size={self.size}"


@dataclass(frozen=True, kw_only=True)
class Semantic:
    """Attack the model at hand and show the perturbations to judges: do they see the true class in them?

    Debenedetti, Sehwag & Mittal, "A Light Recipe to Train Robust Vision Transformers", SaTML 2023, arXiv:2209.07399,
    section V-B. A perturbation becomes the image (x - x_adv + eps) / (2 eps), rounded to 8 bits: bright where the
    attack has darkened, so that it shows what the attack takes away from the true class. Judges are strong ordinary
    classifiers; the paper's are ConvNeXt-XL, BEiT-L and Swin-B. Their classes are kept, and the score is the share of
    the true class.

    Every image is attacked. Prediction and confidence are those of the model at hand on the adversarial image, which
    is right when that and the clean one are.

    Args:
        attack: with a Linf threat; the paper's is untargeted, with 100 steps of 1.5 eps / 100 and eps 4 / 255.
        judges: by their names in tables, with their normalisation inside, for images of the size of the data. Those of
            another device or in training mode are copied.

    Raises:
        ValueError: if there is no judge, or the threat is not Linf with one eps above 0.
    """

    attack: Attack
    judges: Mapping[str, Model] = field(repr=False)
    only_right: ClassVar[bool] = False
    _guests: Guests = field(default_factory=Guests, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_attack(self.attack)
        if not self.judges:
            raise ValueError("judges is empty: give at least one classifier, e.g. {'swin_b': model}")
        threat = fixed_threat(self.attack)
        if not isinstance(threat, Linf) or not self._eps > 0.0:
            raise ValueError(f"a perturbation becomes an image by its Linf eps, above 0, got the threat {threat}")

    @property
    def label(self) -> str:
        """Name the attack and the judges."""
        return f"{attack_label(self.attack)}, perturbations judged by {', '.join(self.judges)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the attack, how a perturbation becomes an image, and the judges with the sha256 of their weights.

        Raises:
            TypeError: if a judge is a function that could not be recognised again.
        """
        image = "(x - x_adv + eps) / (2 eps), rounded to 8 bits"
        return {"kind": "semantic", **attack_settings(self.attack), "image": image, "judges": self._judge_hashes}

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack the images and give the perturbations as images."""
        return self._image(images, attacked(self.attack, model, images, labels, random))

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Records:
        """Attack the images, and let the judges look at the perturbations.

        Raises:
            RuntimeError: if the images leave the threat.
            ValueError: if a judge does not return a logit for every label.
        """
        adversarial = attacked(self.attack, model, images, labels, random)
        shown = self._image(images, adversarial)
        judges = self._guests.of(self.judges, images.device)
        with torch.no_grad():
            clean = check_logits(model(images), images, labels)
            logits = check_logits(model(adversarial), images, labels).float()
            judged = {
                judged_column(name): check_logits(judge(shown), shown, labels).argmax(dim=1)
                for name, judge in judges.items()
            }
        right = (clean.argmax(dim=1) == labels) & (logits.argmax(dim=1) == labels)
        return Records.of(logits, labels, right=right, more=judged)

    def _image(self, images: Tensor, adversarial: Tensor) -> Tensor:
        shown = (images - adversarial + self._eps).div_(2.0 * self._eps).clamp_(0.0, 1.0)
        return shown.mul_(255.0).round_().div_(255.0)

    @property
    def _eps(self) -> float:
        return float(getattr(fixed_threat(self.attack), "eps", 0.0))

    @functools.cached_property
    def _judge_hashes(self) -> dict[str, str]:
        return {name: model_hash(judge) for name, judge in self.judges.items()}
