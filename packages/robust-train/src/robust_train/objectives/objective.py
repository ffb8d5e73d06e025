"""What a training step minimises, as the loop sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from robust_attacks.losses import Loss
from torch import Tensor, nn
from torch.nn import functional

from robust_train.perturb import FULL, Attack, Strength, perturb
from robust_train.settings import BatchNorm, require

Metrics = dict[str, Tensor]
"""Detached sums over the images of a batch, by name; the logs show their means."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a recipe tells its objective besides the objective's own settings.

    Attributes:
        attack: of the recipe, if it has one.
        batch_norm: the model's mode during the attack.
        precision: dtype of automatic mixed precision in the attack, or None.
        shape: (channels, height, width) of an image.
        classes: number of classes.
    """

    attack: Attack | None
    batch_norm: BatchNorm
    precision: torch.dtype | None
    shape: tuple[int, int, int]
    classes: int

    def attacking(self) -> dict[str, Any]:
        """The arguments of an objective that attacks."""
        return {"attack": self.attack, "batch_norm": self.batch_norm, "precision": self.precision}


class Objective:
    """Two halves of a training step: the images to train on, and the loss of every one of them.

    `perturb` makes the images; no gradient reaches the weights. `losses` can be called again on the same images, as
    sharpness-aware optimizers do, and with part of the batch. Subclasses are frozen dataclasses that take keywords.

    Attributes:
        accuracy: the name of the accuracy among the metrics.
        label_smoothing: share of the label that is spread over all classes in the loss, in [0, 1).
        replays: how many updates in a row a batch is used for.
    """

    accuracy: ClassVar[str] = "accuracy"
    label_smoothing: float = 0.0
    replays: int = 1

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, random: ImageRandom | None = None
    ) -> tuple[Tensor, Metrics]:
        """Both halves after one another: the loss (scalar) and the metrics."""
        return self.loss(model, images, self.perturb(model, images, labels, random), labels)

    def perturb(
        self,
        model: nn.Module,  # noqa: ARG002 - for those that attack it
        images: Tensor,
        labels: Tensor,  # noqa: ARG002
        random: ImageRandom | None = None,  # noqa: ARG002
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """Make what is trained on, (N, C, H, W) or several views (N, V, C, H, W); here `images` as they are.

        Args:
            model: the bare module: images in [0, 1] to logits (N, K).
            images: (N, C, H, W) in [0, 1].
            labels: classes, int64 (N,), or probabilities (N, K).
            random: the images' random numbers; None draws a seed from torch's CPU generator.
            strength: shares of the attack's radius and step, for a warm-up.
        """
        return images

    def losses(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - for those that look at the clean images too
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The losses (N,), whose mean is minimised, and further metrics than that.

        Here the cross-entropies of `perturbed`, and how many are classified right, under the name `accuracy`.
        """
        logits = model(perturbed)
        return cross_entropy(logits, labels, self.label_smoothing), {self.accuracy: correct(logits, labels)}

    def convert(self, model: nn.Module) -> None:
        """Change the new model, before it moves to its device, into what the method trains; here nothing."""
        del model

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers from one update to the next, for a checkpoint; here nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        del state_dict

    def learn(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Learn from an update that was made with these images, perturbed images and labels; here nothing."""
        del parts

    def loss(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The mean of the losses (scalar), and the metrics, of which `loss` is the first."""
        losses, metrics = self.losses(model, images, perturbed, labels)
        return losses.mean(), {"loss": losses.detach().sum(), **metrics}


@dataclass(frozen=True, kw_only=True)
class Adversarially(Objective):
    """What the objectives share that attack the model.

    Args:
        attack: makes the images, e.g. `PGD(threat=Linf(eps=8 / 255), steps=10)`.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
    """

    attack: Attack
    batch_norm: BatchNorm = "eval"
    precision: torch.dtype | None = None

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,
    ) -> Tensor:
        """Attack `images` (N, C, H, W) in [0, 1]; no gradient reaches the weights."""
        return self._attacked(model, images, labels, random, strength)

    def _attacked(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None,
        strength: Strength,
        loss: Loss | None = None,
        exact_passes: int = 0,
    ) -> Tensor:
        """Run the attack, against another loss than its own if one is given."""
        return perturb(
            self.attack,
            model,
            images,
            labels,
            random,
            batch_norm=self.batch_norm,
            precision=self.precision,
            loss=loss,
            strength=strength,
            exact_passes=exact_passes,
        )


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropies (N,) with classes (N,) or probabilities (N, K), in float32 at least."""
    wide = widened(logits)
    labels = labels.to(wide.dtype) if labels.is_floating_point() else labels
    return functional.cross_entropy(wide, labels, reduction="none", label_smoothing=label_smoothing)


def widened(values: Tensor) -> Tensor:
    """The values in float32 at least."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images are classified as their label, or as the likeliest of its classes."""
    return (logits.detach().argmax(1) == hard(labels)).sum()


def hard(labels: Tensor) -> Tensor:
    """The classes (N,): those given, or the likeliest of probabilities (N, K)."""
    return labels.argmax(1) if labels.is_floating_point() else labels


def check_smoothing(label_smoothing: float) -> None:
    """Raise a ValueError unless it lies in [0, 1)."""
    require(0 <= label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {label_smoothing}")
