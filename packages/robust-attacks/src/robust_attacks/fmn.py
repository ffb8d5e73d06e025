"""The fast minimum-norm attack."""

from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call, check_images
from robust_attacks._gradient import Objective
from robust_attacks._order import kth_largest
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number
from robust_attacks.closest import (
    BOX,
    Closest,
    Norm,
    Shortest,
    cosine,
    farthest,
    length,
    unit,
    verified,
)
from robust_attacks.losses import Loss, margin, succeeded
from robust_attacks.projections import project_l1
from robust_attacks.random import ImageRandom

_DUALS: dict[Norm, Norm] = {"L1": "Linf", "L2": "L2", "Linf": "L1"}
_BISECTIONS = 10
_BEYOND = 1.02  # lengthens the estimate of the distance of the boundary; the overshoot of DeepFool


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Climb the loss in a ball whose radius is steered towards the decision boundary.

    Pintor, Roli, Brendel, Biggio, "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS
    2021, arXiv:2102.12827, algorithm 1. The radius shrinks while the image is misclassified and grows while it is not;
    until an image is misclassified for the first time, it is an estimate of the distance of the boundary, here made
    2 % longer, since a point on the boundary is not misclassified. The paper projects onto the ball and then clips to
    the box; under L1, where few pixels change and these soon reach the box, that stops short of the boundary for good,
    so L1 is projected exactly onto ball and box. L0 counts entries of (C, H, W), not pixels.

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
        check_number("FMN", "step_size", self.step_size, open_below=True)
        check_number("FMN", "gamma", self.gamma, most=1, open_below=True, open_above=True)
        check_number("FMN", "final_gamma", self.final_gamma, most=1, open_below=True, open_above=True)
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
            point = project(self.norm, images, point.add(unit(gradient), alpha=alpha), radius)
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


def project(norm: Norm, images: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    """Points (N, C, H, W) brought into the balls around images, of radius float64 (N, 1, 1, 1), and into the box.

    L2 shrinks the changes that are outside, Linf clamps them, L0 keeps the largest entries (of equal ones the first),
    and what is in the ball keeps its change; then all are clipped to the box. L1 gives the nearest point of ball and
    box.
    """
    if norm == "L1":
        return project_l1(images, images.double(), points, radius)
    changes = points - images
    if norm == "Linf":
        bound = radius.to(changes.dtype)
        changes = changes.clamp_(-bound, bound)
    elif norm == "L2":
        factor = (radius / length("L2", changes).clamp_(min=1e-300)).clamp_(max=1)
        changes = changes.mul_(factor.to(changes.dtype))
    else:
        changes = changes.mul_(_largest(changes.flatten(1).abs(), radius.flatten()).view_as(changes))
    return changes.add_(images).clamp_(0, 1)


def _largest(sizes: Tensor, count: Tensor) -> Tensor:
    """Which are the `count` (n,) largest of the sizes (n, d), bool; of equal ones the first."""
    wanted = count.long().clamp(max=sizes.shape[1])
    least = kth_largest(sizes, wanted.clamp(min=1))[:, None]
    more, equal = sizes > least, sizes == least
    left = wanted[:, None] - more.sum(dim=1, keepdim=True)
    return more | (equal & (equal.cumsum(dim=1) <= left))


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
    high = length(norm, starts.double() - images)
    low = torch.zeros_like(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        middle = middle.ceil() if norm == "L0" else middle
        won = judge(project(norm, images, starts, middle))
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
