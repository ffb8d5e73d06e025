"""Projected gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_step_size, check_threat
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat

_IDLE = 0.25  # once more than this share of a batch has won, the rest goes on without it: fewer would not pay


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Climb the loss by gradient steps, projecting back into the threat after each.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018,
    arXiv:1706.06083, section 2.1. L1 steps are sparse: Tramèr and Boneh, NeurIPS 2019, arXiv:1904.13000. The
    projections onto ball and box are exact for every threat.

    Without restarts the last iterate is returned, and an image costs exactly `steps` forward and backward passes. With
    restarts the first misclassified iterate of an image is kept, one more forward pass per run judges the last
    iterates, and only images that are not broken yet start again, with new noise; an image that is never broken comes
    back as the last iterate of largest loss. On the CPU, images that are broken in the middle of a run leave the batch
    once they are a quarter of it; elsewhere they stay to the end of the run, and the result is the same.

    Images that are predicted as their targets already come back unchanged from a `targeted` loss; with `random_start`
    that costs one forward pass more per call. With `eot` every pass is made that many times.

    Args:
        threat: what the attacker may change, e.g. `Linf(eps=8 / 255)`.
        steps: gradient steps, >= 1.
        step_size: length of a step in the threat's norm, in pixel units; None means `2.5 * eps / steps`.
        random_start: start from a uniform point of the threat rather than from the image.
        restarts: how many runs an image gets at most, 1..256; more than one needs `random_start`.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        coordinates: for L1, how many pixels a step moves at most; None means `max(1, d // 100)`. Only 1 reaches
            the worst case of a linear model, since equal steps stay equal under the projection.
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1.

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
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("PGD", self.threat)
        check_count("PGD", "steps", self.steps)
        check_step_size("PGD", self.step_size, default="2.5 * eps / steps")
        check_count("PGD", "restarts", self.restarts, most=256)
        check_count("PGD", "eot", self.eot)
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
            objective = Objective(model, self.loss, images, self.eot)
            settled = objective.settle(labels) if self.random_start else None
            if self.restarts > 1 and settled is not None:
                adversarial = self._best_of_restarts(objective, images, labels, random, settled)
            else:
                run = _Run(self, self.threat, images, labels, random)
                for _ in range(self.steps):
                    gradient, _ = objective.gradient(run.iterate, labels)
                    run.climb(gradient)
                adversarial = run.iterate
            return objective.finish(self.threat, adversarial)

    def _best_of_restarts(
        self, objective: Objective, images: Tensor, labels: Tensor, random: ImageRandom, settled: Tensor
    ) -> Tensor:
        """The best of several runs; images that are `settled` before the first come back as they are."""
        result, won = images.clone(), settled.clone()
        highest = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
        for restart in range(self.restarts):
            rows = (~won).nonzero()[:, 0]
            run = _Run(self, self.threat.select(rows), images[rows], labels[rows], random[rows], restart)
            for step in range(self.steps + 1):
                if not len(rows):
                    break
                objective.focus(rows)
                if step < self.steps:
                    gradient, logits = objective.gradient(run.iterate, run.labels)
                    wins = succeeded(self.loss, logits, run.labels)
                    taken = wins & ~won[rows]
                else:
                    with torch.no_grad():
                        logits = objective.logits(run.iterate, run.labels)
                        losses = objective.losses(logits, run.labels).double()
                    wins = succeeded(self.loss, logits, run.labels)
                    taken = ~won[rows] & (wins | (losses > highest[rows]))
                    highest[rows] = torch.where(taken, losses, highest[rows])
                if not _host.can_look(taken) or bool(taken.any()):
                    result[rows] = torch.where(taken[:, None, None, None], run.iterate, result[rows])
                    won[rows] |= wins
                if step < self.steps:
                    run.climb(gradient)
                    if _host.can_look(won):
                        left = (~won[rows]).nonzero()[:, 0]
                        if len(rows) - len(left) > _IDLE * len(rows):
                            run.narrow(left)
                            rows = rows[left]
        return result


class _Run:
    """One run of some images: where they are, and how they move on."""

    def __init__(
        self, attack: PGD, threat: Threat, images: Tensor, labels: Tensor, random: ImageRandom, restart: int = 0
    ) -> None:
        self.labels = labels
        self.iterate = (
            threat.sample(images, random, use="pgd/start", restart=restart) if attack.random_start else images
        )
        self._attack = attack
        self._coordinates = attack.coordinates or max(1, images.shape[1:].numel() // 100)
        self._enter(threat, images)

    def _enter(self, threat: Threat, images: Tensor) -> None:
        self._threat, self._images, self._project = threat, images, threat.projector(images)
        given = self._attack.step_size
        length = given if given is not None else threat.radii(images) * (2.5 / self._attack.steps)
        self._step = torch.as_tensor(length, dtype=images.dtype, device=images.device)

    def climb(self, gradient: Tensor) -> None:
        """One step along the gradient (N, C, H, W), projected."""
        direction = self._threat.direction(gradient, self.iterate, self._coordinates)
        self.iterate = self._project((direction * self._step).add_(self.iterate))

    def narrow(self, index: Tensor) -> None:
        """Go on with some of the images, int64 indices; each as it would have gone on."""
        self.labels, self.iterate = self.labels[index], self.iterate[index]
        self._enter(self._threat.select(index), self._images[index])
