"""Projected gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_step_size, check_threat
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Climb the loss by gradient steps, projecting back into the threat after each.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018,
    arXiv:1706.06083, section 2.1. L1 steps are sparse: Tramèr and Boneh, NeurIPS 2019, arXiv:1904.13000. The
    projections onto ball and box are exact for every threat.

    Without restarts the last iterate is returned, and an image costs exactly `steps` forward and backward passes. With
    restarts the first misclassified iterate of an image is kept, one more forward pass per run judges the last
    iterates, and only images that are not broken yet start again, with new noise; an image that is never broken comes
    back as the last iterate of largest loss. Images that are predicted as their targets already come back unchanged
    from a `targeted` loss; with `random_start` that costs one forward pass more per call.

    Args:
        threat: what the attacker may change, e.g. `Linf(eps=8 / 255)`.
        steps: gradient steps, >= 1.
        step_size: length of a step in the threat's norm, in pixel units; None means `2.5 * eps / steps`.
        random_start: start from a uniform point of the threat rather than from the image.
        restarts: how many runs an image gets at most, 1..256; more than one needs `random_start`.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        coordinates: for L1, how many pixels a step moves at most; None means `max(1, d // 100)`. Only 1 reaches
            the worst case of a linear model, since equal steps stay equal under the projection.

    Examples:
        >>> from robust_attacks import PGD, ImageRandom, Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> attack = PGD(threat=Linf(eps=0.1), steps=5)
        >>> attack(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), random=ImageRandom(seed=0))
        tensor([[[[0.4000, 0.4000]]]])
    """

    threat: Threat
    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    loss: Loss = cross_entropy
    coordinates: int | None = None

    def __post_init__(self) -> None:
        check_threat("PGD", self.threat)
        check_count("PGD", "steps", self.steps)
        check_step_size("PGD", self.step_size, default="2.5 * eps / steps")
        check_count("PGD", "restarts", self.restarts, most=256)
        check_loss("PGD", self.loss)
        if self.coordinates is not None:
            check_count("PGD", "coordinates", self.coordinates)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("PGD: restarts without random_start would repeat the same run: set random_start=True")

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

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
        random = check_call(self.threat, images, labels, random)
        if not len(images):
            return images.detach().clone()
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            objective = Objective(model, self.loss, images)
            settled = objective.settle(labels) if self.random_start else None
            if self.restarts == 1 or settled is None:
                adversarial = self._climb(self.threat, objective, images, labels, random)
            else:
                left = (~settled).nonzero()[:, 0]
                adversarial = self._best_of_restarts(objective, images, labels, random, left)
            return objective.finish(self.threat, adversarial)

    def _climb(
        self,
        threat: Threat,
        objective: Objective,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom,
        restart: int = 0,
        finds: "_Finds | None" = None,
    ) -> Tensor:
        """One run from one start: the last iterate. Misclassified iterates on the way are shown to `finds`."""
        project = threat.projector(images)
        length = self.step_size if self.step_size is not None else threat.radii(images) * (2.5 / self.steps)
        step = torch.as_tensor(length, dtype=images.dtype, device=images.device)
        coordinates = self.coordinates or max(1, images[0].numel() // 100)
        iterate = threat.sample(images, random, use="pgd/start", restart=restart) if self.random_start else images
        for _ in range(self.steps):
            gradient, logits = objective.gradient(iterate, labels)
            if finds is not None:
                finds.show(iterate, succeeded(self.loss, logits, labels))
            iterate = project(threat.direction(gradient, iterate, coordinates).mul_(step).add_(iterate))
        return iterate

    def _best_of_restarts(
        self, objective: Objective, images: Tensor, labels: Tensor, random: ImageRandom, left: Tensor
    ) -> Tensor:
        """The best of several runs for the images with the indices `left`; the others come back as they are."""
        result = images.clone()
        highest = torch.full((len(images),), -torch.inf, device=images.device)
        for restart in range(self.restarts):
            if not len(left):
                break
            objective.focus(left)
            some, their_labels = images[left], labels[left]
            finds = _Finds(some)
            last = self._climb(self.threat.select(left), objective, some, their_labels, random[left], restart, finds)
            with torch.no_grad():
                logits = objective.logits(last, their_labels)
                losses = objective.losses(logits, their_labels)
            finds.show(last, succeeded(self.loss, logits, their_labels))
            higher = losses > highest[left]
            highest[left] = torch.where(higher, losses.to(highest.dtype), highest[left])
            last = torch.where(higher[:, None, None, None], last, result[left])
            result[left] = torch.where(finds.found[:, None, None, None], finds.images, last)
            left = left[~finds.found]
        return result


class _Finds:
    """The first misclassified iterate of each image."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.found = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def show(self, iterate: Tensor, success: Tensor) -> None:
        new = success & ~self.found
        self.images = torch.where(new[:, None, None, None], iterate, self.images)
        self.found |= new
