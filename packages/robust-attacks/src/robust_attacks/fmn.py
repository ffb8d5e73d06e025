"""The fast minimum-norm attack."""

from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call, check_images
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss
from robust_attacks.closest import (
    BOX,
    Closest,
    Norm,
    Shortest,
    check_number,
    cosine,
    farthest,
    length,
    unit,
    verified,
)
from robust_attacks.losses import Loss, margin, succeeded
from robust_attacks.random import ImageRandom

_DUALS: dict[Norm, Norm] = {"L1": "Linf", "L2": "L2", "Linf": "L1"}
_BISECTIONS = 10
_BEYOND = 1.02  # lengthens the estimate of the distance of the boundary; the overshoot of DeepFool
_MOST_CUTS = 64  # Newton's steps in the L1 projection; a dozen are usual


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Climb the loss in a ball whose radius is steered towards the decision boundary.

    Pintor, Roli, Brendel, Biggio, "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS
    2021, arXiv:2102.12827, algorithm 1. The radius shrinks while the image is misclassified and grows while it is not;
    until an image is misclassified for the first time, it is an estimate of the distance of the boundary, here made
    longer by the fraction `final_gamma`. L0 counts entries of (C, H, W), not pixels.

    An image costs `steps` forward passes, `steps` - 1 backward passes, and one forward pass that verifies the result;
    `starts` cost 12 forward passes more.

    Args:
        norm: "L0", "L1", "L2" or "Linf".
        steps: points that are judged, the image itself among them, >= 1; the paper takes up to 1000.
        step_size: L2 length of the first step, in pixel units, > 0; a hundredth of it is that of the last.
        gamma: by which fraction the radius changes in the first step, 0 < gamma < 1.
        final_gamma: and in the last, 0 < final_gamma < 1.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,), zero at the boundary.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if it is out of range.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.8), dim=1)
        >>> closest = FMN(norm="Linf").minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        >>> closest.distances.round(decimals=3)
        tensor([0.1000], dtype=torch.float64)
    """

    norm: Norm = "Linf"
    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    final_gamma: float = 0.001
    loss: Loss = margin

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f'FMN: norm must be "L0", "L1", "L2" or "Linf", got {self.norm!r}')
        check_count("FMN", "steps", self.steps)
        check_number("FMN", "step_size", self.step_size, least=0, most=torch.inf)
        check_number("FMN", "gamma", self.gamma, least=0, most=1)
        check_number("FMN", "final_gamma", self.final_gamma, least=0, most=1)
        check_loss("FMN", self.loss)

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        random: ImageRandom | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """The closest misclassified images, and the given where none was found; arguments as for `minimum`."""
        objective, closest = self._search(model, images, labels, random, starts)
        return objective.finish(BOX, closest.adversarial)

    def minimum(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        random: ImageRandom | None = None,
        starts: Tensor | None = None,
    ) -> Closest:
        """Find the closest misclassified images under the norm; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: not used by this attack beyond the seed for models that randomise; None draws one seed from
                torch's CPU generator.
            starts: misclassified images to start from, in the shape of `images`; each is first drawn as near as ten
                bisections allow. One that is not misclassified counts as none.

        Raises:
            TypeError: if images, labels, `random`, `starts` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        objective, closest = self._search(model, images, labels, random, starts)
        return replace(closest, adversarial=objective.finish(BOX, closest.adversarial))

    def _search(
        self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom | None, starts: Tensor | None
    ) -> tuple[Objective, Closest]:
        random = check_call(BOX, images, labels, random)
        if starts is not None:
            _check_starts(starts, images)
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            objective = Objective(model, self.loss, images)
            shortest = Shortest(self.norm, images)
            if len(images):
                self._descend(objective, shortest, labels, None if starts is None else starts.detach())
            return objective, verified(objective, partial(succeeded, self.loss), shortest, labels)

    def _descend(self, objective: Objective, shortest: Shortest, labels: Tensor, starts: Tensor | None) -> None:
        """Judge `steps` points of every image."""
        images = shortest.images
        most = farthest(self.norm, images)
        radius = torch.ones_like(most) if self.norm == "L0" else torch.full_like(most, torch.inf)
        point = images
        if starts is not None:
            _bisect(objective, self.loss, shortest, labels, starts)
            point, reached = shortest.adversarial, shortest.distances[:, None, None, None]
            radius = torch.where(reached < torch.inf, reached, radius)
        for step in range(self.steps - 1):
            gradient, logits = objective.gradient(point, labels)
            won = succeeded(self.loss, logits, labels)
            shortest.show(point, won)
            gamma = cosine(self.gamma, self.final_gamma, step / self.steps)
            losses = objective.losses(logits, labels)
            radius = self._radius(radius, won, shortest, point, gradient, losses, gamma)
            radius = torch.minimum(radius, most)
            alpha = self.step_size * cosine(1.0, 0.01, step / self.steps)
            change = (point - images).add_(unit(gradient), alpha=alpha)
            point = (images + project(self.norm, change, radius)).clamp_(0, 1)
        with torch.no_grad():
            logits = objective.logits(point, labels)
        shortest.show(point, succeeded(self.loss, logits, labels))

    def _radius(
        self,
        radius: Tensor,
        won: Tensor,
        shortest: Shortest,
        point: Tensor,
        gradient: Tensor,
        losses: Tensor,
        gamma: float,
    ) -> Tensor:
        """The next radius of every image, float64 (N, 1, 1, 1)."""
        won, best = won[:, None, None, None], shortest.distances[:, None, None, None]
        if self.norm == "L0":
            smaller = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), best)
            larger = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
            return torch.where(won, smaller, larger).clamp_(min=1)
        slope = length(_DUALS[self.norm], gradient).clamp_(min=1e-300)
        gap = losses.double().abs()[:, None, None, None].nan_to_num_(nan=torch.inf)
        estimate = length(self.norm, point.double() - shortest.images) + gap / slope
        estimate = estimate * _BEYOND
        outside = torch.where(best < torch.inf, radius * (1 + gamma), estimate)
        return torch.where(won, torch.minimum(radius * (1 - gamma), best), outside)


def project(norm: Norm, changes: Tensor, radius: Tensor) -> Tensor:
    """Nearest point to each change (N, C, H, W) in the ball of its radius, float64 (N, 1, 1, 1), without the box.

    L2 shrinks what is outside, Linf clamps, L1 subtracts the same from all sizes, L0 keeps the largest entries (of
    equal ones the first). What is inside stays as it is.
    """
    if norm == "Linf":
        bound = radius.to(changes.dtype)
        return changes.clamp(-bound, bound)
    if norm == "L2":
        return (changes * (radius / length("L2", changes).clamp_(min=1e-300)).clamp_(max=1)).to(changes.dtype)
    sizes = changes.flatten(1).abs()
    if norm == "L0":
        order = sizes.argsort(dim=1, descending=True, stable=True)
        chosen = torch.arange(sizes.shape[1], device=sizes.device) < radius.flatten(1)
        return changes * torch.zeros_like(chosen).scatter_(1, order, chosen).reshape(changes.shape)
    cut = _cut(sizes, radius.flatten(1)).to(changes.dtype)
    return ((sizes - cut).clamp_(min=0) * changes.flatten(1).sign()).reshape(changes.shape)


def _cut(sizes: Tensor, radius: Tensor) -> Tensor:
    """The root t >= 0 of `sum max(size - t, 0) = radius`, float64 (N, 1); 0 where the sum of sizes is smaller.

    The left side is convex and falling, so that Newton's steps from 0 climb to the root and never pass it; they are
    there once no entry drops out (Michelot, "A finite algorithm for finding the projection of a point onto the
    canonical simplex of R^n", JOTA 1986).
    """
    cut = torch.zeros_like(radius)
    before = None
    for _ in range(_MOST_CUTS):
        above = sizes > cut
        count = above.sum(dim=1, keepdim=True)
        if sizes.device.type == "cpu" and before is not None and torch.equal(count, before):
            break
        total = (sizes * above).sum(dim=1, keepdim=True, dtype=torch.float64)
        cut = torch.maximum(cut, (total - radius) / count.clamp(min=1))
        before = count
    return cut


def _check_starts(starts: Tensor, images: Tensor) -> None:
    if not isinstance(starts, Tensor):
        raise TypeError(f"starts must be a torch.Tensor of images, or None, got {type(starts).__name__}")
    if starts.shape != images.shape or starts.dtype != images.dtype or starts.device != images.device:
        raise ValueError(
            f"starts must be one image per image, {images.dtype} {tuple(images.shape)} on {images.device}, "
            f"got {starts.dtype} {tuple(starts.shape)} on {starts.device}"
        )
    try:
        check_images(starts)
    except ValueError as error:
        raise ValueError(f"starts are images as well: {error}") from error


def _bisect(objective: Objective, loss: Loss, shortest: Shortest, labels: Tensor, starts: Tensor) -> None:
    """Judge the images, the starts, and points between them, nearer while the attacker wins and farther else."""
    images, norm = shortest.images, shortest.norm

    @torch.no_grad()
    def judge(points: Tensor) -> Tensor:
        won = succeeded(loss, objective.logits(points, labels), labels)
        shortest.show(points, won)
        return won[:, None, None, None]

    judge(images)
    judge(starts)
    changes = starts - images
    high = length(norm, changes)
    low = torch.zeros_like(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        middle = middle.ceil() if norm == "L0" else middle
        won = judge((images + project(norm, changes, middle)).clamp_(0, 1))
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
