"""What a training step minimises: `objective(model, images, labels, random) -> (loss, metrics)`, one method per file.

An objective is a frozen dataclass with two public halves. `perturb(...)` makes the images that are trained on; no
gradient reaches the weights. `loss(...)` gives the scalar to minimise, and can be called again on the same images (as
sharpness-aware optimizers do). Metrics are detached sums over the images of the batch.
"""

from typing import Protocol

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn

from robust_train.config import Recipe
from robust_train.objectives.adversarial import Adversarial as Adversarial
from robust_train.objectives.standard import Standard as Standard
from robust_train.perturb import build_attack

__all__ = ["Adversarial", "Objective", "Standard", "build_objective"]


class Objective(Protocol):
    """What the loop needs of an objective."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, random: ImageRandom | None = None) -> Tensor:
        """Make the images that are trained on."""
        ...

    def loss(
        self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and detached sums over the images."""
        ...


def build_objective(recipe: Recipe, precision: torch.dtype | None = None) -> Objective:
    """The objective of a recipe; `precision` is the dtype of its mixed precision, None for float32."""
    smoothing = recipe.objective.label_smoothing
    if recipe.attack is None:
        return Standard(label_smoothing=smoothing)
    return Adversarial(
        attack=build_attack(recipe.attack),
        label_smoothing=smoothing,
        batch_norm=recipe.attack.batch_norm,
        precision=precision if recipe.attack.autocast else None,
    )
