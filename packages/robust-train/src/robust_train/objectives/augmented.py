"""What the objectives share that train on augmented views of the images."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from robust_attacks import ImageRandom
from robust_augs import jensen_shannon
from torch import Tensor, nn

from robust_train.objectives.objective import Metrics, Objective, correct, cross_entropy
from robust_train.perturb import FULL, Strength
from robust_train.seeds import derive


class Augmentation(Protocol):
    """An augmentation of robust-augs, or anything called like one."""

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment `images` (N, C, H, W) in [0, 1]."""
        ...


class Augmenting(Objective, ABC):
    """The cross-entropy of augmented images: what objectives share that make them without looking at the model."""

    accuracy: ClassVar[str] = "augmented_accuracy"

    def perturb(
        self,
        model: nn.Module,  # noqa: ARG002
        images: Tensor,
        labels: Tensor,  # noqa: ARG002
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """Augment `images` (N, C, H, W) in [0, 1]."""
        return self.augmented(images, generator_of(random, "augmentation"))

    @abstractmethod
    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment `images` (N, C, H, W) in [0, 1]: one view (N, C, H, W), or several (N, V, C, H, W)."""


def generator_of(random: ImageRandom | None, use: str) -> torch.Generator:
    """Random numbers of a batch for one purpose, on the CPU, so that every device gets the same.

    They depend on the seed and on the id of the first image: the parts of a batch, and of several processes, draw
    differently. Without `random` the seed is drawn from torch's CPU generator.
    """
    if random is None:
        random = ImageRandom.fresh(0)
    first = 0 if random.ids is None else int(random.ids[:1].sum())
    return torch.Generator().manual_seed(derive(random.seed, use, first))


def augmented_views(images: Tensor, augment: Augmentation, generator: torch.Generator, count: int = 2) -> Tensor:
    """The images and `count` augmented views of each, (N, 1 + count, C, H, W)."""
    return torch.stack([images, *(augment(images, generator=generator) for _ in range(count))], dim=1)


def logits_of_views(model: Callable[[Tensor], Tensor] | nn.Module, views: Tensor) -> tuple[Tensor, ...]:
    """One forward pass of all views (N, V, C, H, W), view after view: V times logits (N, K)."""
    logits: Tensor = model(views.transpose(0, 1).flatten(0, 1))
    return logits.chunk(views.shape[1])


def consistent_losses(model: nn.Module, views: Tensor, labels: Tensor, weight: float) -> tuple[Tensor, Metrics]:
    """Cross-entropies (N,) of the first of several views, plus `weight` times the Jensen-Shannon divergence of all."""
    logits = logits_of_views(model, views)
    divergence = jensen_shannon(*logits)
    metrics = {"accuracy": correct(logits[0], labels), "divergence": divergence.detach().sum()}
    return cross_entropy(logits[0], labels) + weight * divergence, metrics
