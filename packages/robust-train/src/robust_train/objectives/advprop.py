"""Adversarial images as additional examples, with batch norms of their own."""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import ImageRandom, Threat
from robust_models.layers import bn_status, convert_switchable_bn
from torch import Tensor, nn
from torch.nn import functional

from robust_train.errors import SetupError
from robust_train.objectives.objective import Adversarially, Context, Metrics, correct, cross_entropy, hard
from robust_train.perturb import FULL, Strength
from robust_train.settings import require


@dataclass(frozen=True, kw_only=True)
class AdvProp(Adversarially):
    """The cross-entropies of clean images and of attacked ones, each through batch norms of their own.

    Xie et al., "Adversarial Examples Improve Image Recognition", CVPR 2020, arXiv:1911.09665, algorithm 1. Every image
    is attacked towards the class (y + u) mod K with u uniform in {0, ..., K - 1}. The main batch norms see the clean
    images and evaluation uses them alone; `robust_models.layers.drop_aux_bn` takes the others away. A step costs the
    attack and two forward and backward passes: 8 passes with one attack step.

    Differs from the published code: whether an attack begins at noise is drawn per image, not per batch. With dropout
    or stochastic depth the two forms draw other masks.

    Args:
        attack: makes the images; published are PGD in Linf with eps 1/255, one step of 1/255 (AdvProp-B0).
        form: "paper" passes clean and attacked images after one another and adds the losses; "easyrobust" (Mao et al.,
            "EasyRobust") passes them together, clean ones first, and averages.
        attack_through: batch norms that the attack sees: the "auxiliary" ones in the paper, the "main" ones in
            EasyRobust.
        start_share: share of the images whose attack begins where it is told to (`random_start`); for the others it
            begins at the image. In [0, 1].
        batch_norms: "dual" gives the model auxiliary batch norms and refuses one without batch norms; "single" leaves
            the model as it is, such as a ViT.
    """

    form: Literal["paper", "easyrobust"] = "paper"
    attack_through: Literal["auxiliary", "main"] = "auxiliary"
    start_share: float = 1.0
    batch_norms: Literal["dual", "single"] = "dual"

    def convert(self, model: nn.Module) -> None:
        """Give every batch norm of the model an auxiliary one.

        Raises:
            SetupError: if it has none, and auxiliary ones are wanted.
        """
        if self.batch_norms == "single":
            return
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            raise SetupError(
                f"advprop needs a model with batch norms, and {type(model).__name__} has none: choose another model, "
                "or set objective.batch_norms to single"
            )
        convert_switchable_bn(model)

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,
    ) -> Tensor:
        """Attack `images` (N, C, H, W) in [0, 1] towards random classes."""
        random = ImageRandom.fresh(len(images), images.device) if random is None else random.of(images)
        attack: Any = self.attack
        if self.start_share < 1:
            attack = dataclasses.replace(attack, threat=_sometimes(attack.threat, self.start_share))
        through = "adv" if self.attack_through == "auxiliary" else "clean"
        with self._status(model, through):
            return dataclasses.replace(self, attack=attack)._attacked(
                model, images, hard(labels), random, strength, _towards(hard(labels), random)
            )

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy` and `adversarial_accuracy`."""
        if self.form == "paper":
            with self._status(model, "clean"):
                clean = model(images)
            with self._status(model, "adv"):
                attacked = model(perturbed)
        else:
            with self._status(model, "mix"):
                clean, attacked = model(torch.cat([images, perturbed])).chunk(2)
        losses = cross_entropy(clean, labels) + cross_entropy(attacked, labels)
        metrics = {"accuracy": correct(clean, labels), "adversarial_accuracy": correct(attacked, labels)}
        return losses if self.form == "paper" else losses / 2, metrics

    def _status(self, model: nn.Module, status: str) -> contextlib.AbstractContextManager[None]:
        """Let the images of a pass see the main batch norms, the auxiliary ones, or half of them each."""
        if self.batch_norms == "single":
            return contextlib.nullcontext()
        return bn_status(model, status, eval_branch="adv" if status == "adv" else "main")


def _towards(labels: Tensor, random: ImageRandom) -> Callable[[Tensor, Tensor], Tensor]:
    """What an attack climbs that moves every image towards a class of its own."""

    def losses(logits: Tensor, _: Tensor) -> Tensor:
        classes = logits.shape[1]
        targets = (labels + random.integers("advprop/target", classes, 1)[:, 0]) % classes
        return -functional.cross_entropy(logits, targets, reduction="none")

    return losses


def _sometimes(threat: Threat, share: float) -> Any:
    """The threat, with random starts for a share of the images and starts at the image for the others."""
    kind: Any = type(threat)

    class Sometimes(kind):  # type: ignore[misc]
        def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
            starts = random.uniform("advprop/start", (1, 1, 1)).to(images.device) < share
            return torch.where(starts, super().sample(images, random, use=use, restart=restart), images)

    return Sometimes(**{field.name: getattr(threat, field.name) for field in dataclasses.fields(kind)})


@dataclass(frozen=True, kw_only=True)
class AdvPropSettings:
    """The cross-entropies of clean images and of attacked ones, each through batch norms of their own.

    Args:
        name: "advprop".
        form: "paper" passes clean and attacked images after one another and adds the losses; "easyrobust" passes them
            together and averages.
        attack_through: batch norms that the attack sees: "auxiliary" in the paper, "main" in EasyRobust.
        start_share: share of the images whose attack begins at attack.start, the others beginning at the image, in
            [0, 1]; about 0.42 in EasyRobust.
        batch_norms: "dual" gives the model auxiliary ones; "single" leaves it as it is, such as a ViT.
    """

    attacks: ClassVar[bool] = True

    name: Literal["advprop"]
    form: Literal["paper", "easyrobust"]
    attack_through: Literal["auxiliary", "main"]
    start_share: float
    batch_norms: Literal["dual", "single"]

    def __post_init__(self) -> None:
        require(0 <= self.start_share <= 1, f"start_share must lie in [0, 1], got {self.start_share}")
        through = self.batch_norms == "dual" or self.attack_through == "main"
        require(through, "attack_through must be main with single batch norms: there are no auxiliary ones")

    def build(self, context: Context) -> AdvProp:
        """The objective."""
        return AdvProp(
            **context.attacking(),
            form=self.form,
            attack_through=self.attack_through,
            start_share=self.start_share,
            batch_norms=self.batch_norms,
        )
