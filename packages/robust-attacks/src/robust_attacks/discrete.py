"""Discrete adversarial step for training: perturb what a quantiser makes of an image, and quantise again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_attacks._checks import Model
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_loss, check_number, check_step_size
from robust_attacks._soft_labels import BOX, bound, check_training_call
from robust_attacks.losses import Loss, cross_entropy
from robust_attacks.random import ImageRandom
from robust_attacks.threats import L2

Quantiser = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to images of the same shape in [0, 1], as a frozen VQGAN: encode, quantise, decode."""


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """One step in L2 from the quantised image, quantised again: `Q(clip(Q(x) + d))`.

    Mao, Chen, Jia, Wang, Tang, Zhu, Li, Hou, "Enhance the visual representation via discrete adversarial training",
    NeurIPS 2022, arXiv:2209.07735, section 3.2. The loss is differentiated at Q(x), and never through Q. d is the start
    (a random point of the sphere of radius eps, or 0) plus one step along the normalised gradient, projected to the
    ball of radius eps.

    For training: labels may be soft, nothing is verified, the model stays in the mode in which it is, and nothing in
    model or quantiser moves. The result is not near the image in any norm; the only promise is that it lies in [0, 1].

    An image costs one forward and one backward pass of the model and two passes of the quantiser.

    Args:
        quantiser: images (N, C, H, W) in [0, 1] to images of the same shape in [0, 1]; any callable. It is called
            without gradients and in the mode in which it is.
        eps: radius of the L2 ball around Q(x), in units of [0, 1] pixels, >= 0.
        step_size: L2 length of the step, same units; None means eps.
        start_probability: how likely an image starts from the sphere rather than from Q(x), 0..1.
        loss: what to increase: logits (N, K), labels (N,) or soft labels (N, K) -> losses (N,).

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if a setting is out of range.

    Examples:
        >>> coarse = lambda images: (images * 4).round() / 4
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> attack = Discrete(quantiser=coarse, eps=0.25, start_probability=0)
        >>> attack(model, torch.full((1, 1, 1, 2), 0.55), torch.tensor([0]))
        tensor([[[[0.2500, 0.5000]]]])
    """

    quantiser: Quantiser
    eps: float = 0.1
    step_size: float | None = None
    start_probability: float = 0.8
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        if isinstance(self.quantiser, type) or not callable(self.quantiser):
            raise TypeError(
                "Discrete: quantiser must be a callable that takes images and returns images, as a frozen "
                f"autoencoder, got {self.quantiser!r}"
            )
        check_number("Discrete", "eps", self.eps)
        check_step_size("Discrete", self.step_size, default="eps")
        check_number("Discrete", "start_probability", self.start_probability, most=1)
        check_loss("Discrete", self.loss)

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: classes, int64 (N,), or soft labels, float (N, K).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random`, logits or what the quantiser returns are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        classes, random = check_training_call(images, labels, random)
        if not len(images):
            return images.detach().clone()
        with (
            pristine(self.quantiser, images, random.seed) as quantiser,
            pristine(model, images, random.seed) as model,
        ):
            images, classes, labels = images.detach().clone(), classes.clone(), labels.detach().clone()
            rises = bound(self.loss, labels)
            # A plain function: also a targeted loss takes its step, since in training no image is left out.
            objective = Objective(model, lambda logits, labels: rises(logits, labels), images)
            origin = _quantised(quantiser, images)
            gradient, _ = objective.gradient(origin, classes)
            step = self.eps if self.step_size is None else self.step_size
            change = self._start(images, random) + step * L2(eps=self.eps).direction(gradient, origin).double()
            change *= (self.eps / _lengths(change)).clamp_(max=1)
            return objective.finish(BOX, _quantised(quantiser, (origin + change).clamp_(0, 1).to(images.dtype)))

    def _start(self, images: Tensor, random: ImageRandom) -> Tensor:
        """Where each image starts, seen from Q(x): float64 (N, C, H, W) of length eps or 0."""
        normal = random.normal("discrete/start", images.shape[1:]).double()
        starts = random.uniform("discrete/coin", (1, 1, 1)) < self.start_probability
        return torch.where(starts, self.eps * normal / _lengths(normal), 0.0)


def _lengths(changes: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(changes, dim=(1, 2, 3), keepdim=True)
    return lengths.clamp_(min=1e-300)


def _quantised(quantiser: Quantiser, images: Tensor) -> Tensor:
    """What the quantiser makes of images, checked, as a new tensor of their dtype."""
    with torch.no_grad():
        made: Any = quantiser(images)
    if not isinstance(made, Tensor) or not made.is_floating_point():
        what = made.dtype if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise TypeError(f"the quantiser must return float images as a tensor, it returned {what}")
    if made.shape != images.shape or made.device != images.device:
        raise ValueError(
            f"the quantiser must return images of the same shape and device, it turned {tuple(images.shape)} on "
            f"{images.device} into {tuple(made.shape)} on {made.device}"
        )
    low, high = (float(end) for end in made.aminmax())
    if not (low >= 0 and high <= 1):  # also when they are NaN
        raise ValueError(
            f"the quantiser must return images in [0, 1], got [{low:.4g}, {high:.4g}]: map its range into the box, as "
            "(decoded / 2 + 0.5).clamp(0, 1) for an autoencoder of images in [-1, 1]"
        )
    return made.detach().to(images.dtype, copy=True)
