"""N-FGSM: one gradient step from strong noise, for training."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_linf, check_loss, check_number, check_step_size
from robust_attacks.losses import Loss, cross_entropy
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf


@dataclass(frozen=True, kw_only=True)
class NFGSM:
    """One signed gradient step from noise that is stronger than the threat, clipped to the box and *not* to the ball.

    de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez, Dokania, "Make some noise: reliable and efficient single-step
    adversarial training", NeurIPS 2022, arXiv:2202.01181, algorithm 1; as in the authors' code, the noise is clipped to
    the box before the step too.

    For training only: pixels change by up to `(noise + 1) * eps`, so a model's accuracy under it says nothing about
    the threat. `NFGSM.inside_threat` is False for evaluation code to see, as
    `getattr(attack, "inside_threat", True)`.

    An image costs one forward and one backward pass. Images that are predicted as their targets already come back
    unchanged from a `targeted` loss, at one forward pass more per call.

    Args:
        threat: the ball that is trained for, `Linf(eps=...)`.
        noise: half the width of the uniform noise in units of eps, k in the paper, > 0.
        step_size: length of the step, in pixel units; None means eps.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1; every pass is made
            that many times.

    Examples:
        >>> import torch
        >>> from robust_attacks import ImageRandom, Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> attack = NFGSM(threat=Linf(eps=0.1))
        >>> found = attack(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), random=ImageRandom(0))
        >>> bool(((found - 0.4).abs() <= 0.2).all())
        True
    """

    inside_threat: ClassVar[bool] = False

    threat: Linf
    noise: float = 2.0
    step_size: float | None = None
    loss: Loss = cross_entropy
    eot: int = 1

    def __post_init__(self) -> None:
        check_linf("NFGSM", self.threat)
        check_number("NFGSM", "noise", self.noise, open_below=True)
        check_loss("NFGSM", self.loss)
        check_step_size("NFGSM", self.step_size, default="eps")
        check_count("NFGSM", "eot", self.eot)

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
            objective.settle(labels)
            radii = self.threat.radii(images)
            drawn = random.uniform("nfgsm/start", images.shape[1:]).double()
            start = (images + self.noise * radii * (2 * drawn - 1)).clamp_(0, 1).to(images.dtype)
            gradient, _ = objective.gradient(start, labels)
            length = radii if self.step_size is None else self.step_size
            adversarial = (start + length * gradient.sign().double()).clamp_(0, 1).to(images.dtype)
            return objective.finish(Linf(eps=1), adversarial)
