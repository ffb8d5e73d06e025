"""The momentum iterative fast gradient sign method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective, unit_l1
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number, check_step_size, check_threat
from robust_attacks.losses import Loss, cross_entropy
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """Steps along a decaying sum of the gradients so far, each divided by its L1 norm; for attacks that transfer.

    Dong, Liao, Pang, Su, Zhu, Hu, Li, "Boosting adversarial attacks with momentum", CVPR 2018, arXiv:1710.06081,
    equations 6 and 7 (MI-FGSM); for any threat here: `m = mu m + g / ||g||_1`, then a step of steepest ascent along m,
    projected exactly onto ball and box. A gradient that is zero adds nothing to m.

    The last iterate is returned. An image costs exactly `steps` forward and backward passes; images that are predicted
    as their targets already come back unchanged from a `targeted` loss.

    Args:
        threat: what the attacker may change, e.g. `Linf(eps=16 / 255)`.
        steps: gradient steps, >= 1.
        mu: how much of the last step's momentum is kept, >= 0; 0 is a plain iteration, 1 forgets nothing.
        step_size: length of a step in the threat's norm, in pixel units; None means `eps / steps`.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        coordinates: for L1, how many pixels a step moves at most, see `PGD`; None means `max(1, d // 100)`.
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1; every pass is made
            that many times.

    Examples:
        >>> from robust_attacks import Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> MIFGSM(threat=Linf(eps=0.1))(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        tensor([[[[0.4000, 0.4000]]]])
    """

    threat: Threat
    steps: int = 10
    mu: float = 1.0
    step_size: float | None = None
    loss: Loss = cross_entropy
    coordinates: int | None = None
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("MIFGSM", self.threat)
        check_count("MIFGSM", "steps", self.steps)
        check_number("MIFGSM", "mu", self.mu)
        check_step_size("MIFGSM", self.step_size, default="eps / steps")
        check_loss("MIFGSM", self.loss)
        if self.coordinates is not None:
            check_count("MIFGSM", "coordinates", self.coordinates)
        check_count("MIFGSM", "eot", self.eot)

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams. The attack draws nothing; they only seed a model that does.

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
            project, iterate = self.threat.projector(images), images
            length = self.step_size if self.step_size is not None else self.threat.radii(images) * (1 / self.steps)
            step = torch.as_tensor(length, dtype=images.dtype, device=images.device)
            coordinates = self.coordinates or max(1, images[0].numel() // 100)
            momentum = torch.zeros_like(images)
            for _ in range(self.steps):
                gradient, _ = objective.gradient(iterate, labels)
                momentum = momentum.mul_(self.mu).add_(unit_l1(gradient))
                direction = self.threat.direction(momentum, iterate, coordinates)
                iterate = project((direction * step).add_(iterate))
            return objective.finish(self.threat, iterate)
