"""The fast gradient sign method and its variant with a random start."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_step_size, check_threat
from robust_attacks.losses import Loss, cross_entropy
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of steepest ascent, projected into the threat.

    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, arXiv:1412.6572; for any
    threat here (L1 steps along the one pixel of largest gradient that has room). With `random_start` it is FGSM-RS of
    Wong, Rice, Kolter, "Fast is better than free", ICLR 2020, arXiv:2001.03994; to restart it, use
    `PGD(steps=1, step_size=1.25 * eps, restarts=...)`.

    An image costs one forward and one backward pass. Images that are predicted as their targets already come back
    unchanged from a `targeted` loss; with `random_start` that costs one forward pass more per call.

    Args:
        threat: what the attacker may change, e.g. `Linf(eps=8 / 255)`.
        step_size: length of the step in the threat's norm, in pixel units; None means eps, or 1.25 eps after a
            random start.
        random_start: start from a uniform point of the threat rather than from the image.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1; every pass is made
            that many times.

    Examples:
        >>> from robust_attacks import FGSM, Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> FGSM(threat=Linf(eps=0.1))(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        tensor([[[[0.4000, 0.4000]]]])
    """

    threat: Threat
    step_size: float | None = None
    random_start: bool = False
    loss: Loss = cross_entropy
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("FGSM", self.threat)
        check_loss("FGSM", self.loss)
        check_step_size("FGSM", self.step_size, default="eps")
        check_count("FGSM", "eot", self.eot)

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
            project, start = self.threat.projector(images), images
            if self.random_start:
                objective.settle(labels)
                start = self.threat.sample(images, random, use="fgsm/start")
            gradient, _ = objective.gradient(start, labels)
            length = (
                self.step_size
                if self.step_size is not None
                else self.threat.radii(images) * (1.25 if self.random_start else 1.0)
            )
            step = torch.as_tensor(length, dtype=images.dtype, device=images.device)
            adversarial = project(start + self.threat.direction(gradient, start) * step)
            return objective.finish(self.threat, adversarial)
