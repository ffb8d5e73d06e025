"""The attack with decoupled direction and norm."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number
from robust_attacks.closest import BOX, Closest, Shortest, cosine, farthest, length, unit, verified
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.random import ImageRandom


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Follow the gradient on a sphere that shrinks while the image is misclassified and grows while it is not.

    Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger, "Decoupling direction and norm for efficient gradient-based
    L2 adversarial attacks and defenses", CVPR 2019, arXiv:1811.09600, algorithm 1. An image whose gradient is exactly
    zero follows a random direction of its own, always the same one.

    An image costs `steps` forward passes, `steps` - 1 backward passes, and one forward pass that verifies the result.

    Args:
        steps: points that are judged, the image itself among them, >= 1.
        gamma: by which fraction the norm changes in a step, 0 < gamma < 1.
        initial_norm: the L2 norm of the first change, in pixel units, > 0.
        levels: how many values a pixel of the result can have, >= 2, so 256 for images of 8 bits; None for any value.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if it is out of range.

    Examples:
        >>> from robust_attacks import ImageRandom
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.805), dim=1)
        >>> closest = DDN().minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), random=ImageRandom(0))
        >>> closest.adversarial  # the boundary is a sum of 0.805; pixels are multiples of 1 / 255
        tensor([[[[0.4000, 0.4000]]]])
        >>> closest.accuracy([0.1, 0.2])
        tensor([1., 0.], dtype=torch.float64)
    """

    steps: int = 100
    gamma: float = 0.05
    initial_norm: float = 1.0
    levels: int | None = 256
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        check_count("DDN", "steps", self.steps)
        check_number("DDN", "gamma", self.gamma, most=1, open_below=True, open_above=True)
        check_number("DDN", "initial_norm", self.initial_norm, open_below=True)
        if self.levels is not None:
            check_count("DDN", "levels", self.levels)
            if self.levels < 2:
                raise ValueError(f"DDN: levels must be at least 2, or None for any value, got {self.levels}")
        check_loss("DDN", self.loss)

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """The closest misclassified images, and the given where none was found; arguments as for `minimum`."""
        objective, closest = self._search(model, images, labels, random)
        return objective.finish(BOX, closest.adversarial)

    def minimum(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Closest:
        """Find the closest misclassified images under L2; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        objective, closest = self._search(model, images, labels, random)
        return replace(closest, adversarial=objective.finish(BOX, closest.adversarial))

    def _search(
        self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom | None
    ) -> tuple[Objective, Closest]:
        random = check_call(BOX, images, labels, random)
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            objective = Objective(model, self.loss, images)
            shortest = Shortest("L2", images)
            if len(images):
                self._descend(objective, shortest, images, labels, random)
            return objective, verified(objective, partial(succeeded, self.loss), shortest, labels, self._rounded)

    def _descend(
        self, objective: Objective, shortest: Shortest, images: Tensor, labels: Tensor, random: ImageRandom
    ) -> None:
        """Judge `steps` points of every image."""
        wander = random.normal("ddn/direction", images.shape[1:], dtype=images.dtype)
        most = farthest("L2", images)
        radius = torch.full_like(most, self.initial_norm)
        point = images
        for step in range(self.steps - 1):
            gradient, logits = objective.gradient(point, labels)
            won = succeeded(self.loss, logits, labels)
            shortest.show(point, won)
            direction = unit(torch.where(length("L2", gradient) > 0, gradient, wander))
            change = direction.mul_(cosine(1.0, 0.01, step / self.steps)).add_(point - images)
            smaller, larger = radius * (1 - self.gamma), radius * (1 + self.gamma)
            radius = torch.where(won[:, None, None, None], smaller, larger).minimum(most)
            point = self._rounded((images + unit(change) * radius).clamp_(0, 1).to(images.dtype))
        with torch.no_grad():
            logits = objective.logits(point, labels)
        shortest.show(point, succeeded(self.loss, logits, labels))

    def _rounded(self, points: Tensor) -> Tensor:
        return points if self.levels is None else points.mul_(self.levels - 1).round_().div_(self.levels - 1)
