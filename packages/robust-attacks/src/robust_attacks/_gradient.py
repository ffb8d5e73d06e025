"""The one place where attacks call a model and differentiate it."""

import warnings

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_labels, check_logits, check_result
from robust_attacks.losses import Loss, Targeted, succeeded
from robust_attacks.threats import Threat

_PIXELS = (1, 2, 3)


class Objective:
    """A model's loss as a function of images, for one call of an attack, and what is to be said at its end.

    A model that randomises is differentiated `eot` times, and its gradient and logits are the means of these draws:
    Athalye, Engstrom, Ilyas, Kwok, "Synthesizing robust adversarial examples", ICML 2018, arXiv:1707.07397. Every draw
    is a pass of its own, so the memory is that of one.

    Args:
        model: images to logits.
        loss: what the attacker increases.
        images: all images of the call, (N, C, H, W).
        eot: draws per gradient and per judgement, >= 1.
    """

    def __init__(self, model: Model, loss: Loss, images: Tensor, eot: int = 1) -> None:
        self._model = model
        self._loss = loss
        self._images = images
        self._eot = eot
        self._first = True
        self._flat = False
        self._settled: Tensor | None = None
        self.broken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        """Which images had logits or gradients that were not finite, bool (N,)."""
        self._rows: Tensor | slice = slice(None)

    def focus(self, rows: Tensor) -> None:
        """Tell which images of the call, int64 indices, the next passes are about; at first they are about all."""
        self._rows = rows

    def settle(self, labels: Tensor) -> Tensor:
        """Which images are predicted as their targets already, bool (N,): one forward pass if the loss is targeted.

        Needed before an attack that starts elsewhere than at the images. An ordinary loss has no such images.
        """
        if isinstance(self._loss, Targeted):
            with torch.no_grad():
                self.logits(self._images, labels)
        return torch.zeros_like(self.broken) if self._settled is None else self._settled

    def logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) of the images, checked; the mean of all draws. The first call also checks the labels' range.

        With a targeted loss the first call must be about the clean images.
        """
        logits = self._forward(images, labels)
        for _ in range(self._eot - 1):
            logits = _widened(logits) + _widened(self._forward(images, labels))
        if self._eot > 1:
            logits = logits / self._eot
        self._judge(logits.detach(), labels)
        return logits

    def _forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The logits of one draw."""
        version = images._version
        logits = self._model(images)
        check_logits(logits, images)
        if images._version != version:
            raise ValueError("the model changes its input in place, as by images.sub_(mean): let it make a new tensor")
        if self._first:
            check_labels(labels, images, classes=logits.shape[1])
        return logits

    def _judge(self, logits: Tensor, labels: Tensor) -> None:
        """Note what is to be known of logits, without a graph: who has arrived already, and what is not finite."""
        if self._first and isinstance(self._loss, Targeted):
            self._settled = succeeded(self._loss, logits, labels)
        self._first = False
        if not _host.surely_finite(logits):
            self.broken[self._rows] |= ~logits.isfinite().all(dim=1)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses (N,) of logits.

        Raises:
            ValueError: if the loss is reduced over the images.
        """
        losses = self._loss(logits, labels)
        if losses.shape != labels.shape:
            raise ValueError(
                f"the loss must return one number per image, shape {tuple(labels.shape)}, "
                f'got {tuple(losses.shape)}: use reduction="none"'
            )
        return losses

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the summed losses with respect to the images (N, C, H, W), and the logits (N, K).

        One forward and one backward pass per draw. The sum, unlike the mean, keeps images independent of the batch
        size. NaN counts as zero, so that an image with broken gradients stays where it is; `finish` speaks of it.
        """
        gradient, logits = self._differentiate(images, labels)
        for _ in range(self._eot - 1):
            more, drawn = self._differentiate(images, labels)
            gradient, logits = gradient + more, _widened(logits) + _widened(drawn)
        if self._eot > 1:
            gradient, logits = gradient / self._eot, logits / self._eot
        self._judge(logits, labels)
        if _host.surely_finite(gradient):
            return gradient, logits
        self.broken[self._rows] |= ~gradient.abs().amax(dim=_PIXELS).isfinite()
        return gradient.nan_to_num(nan=0.0), logits  # a new tensor: autograd may hand out expanded ones

    def _differentiate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of one draw, and its logits without a graph."""
        leaf = images.detach().requires_grad_()
        logits = self._forward(leaf, labels)
        total = self.losses(logits, labels).sum()
        gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None:
            self._flat = True
            gradient = torch.zeros_like(images)
        return gradient, logits.detach()

    def finish(self, threat: Threat, adversarial: Tensor) -> Tensor:
        """The result of the call, checked; images that were predicted as their targets from the first are the given.

        To be called by the attack's `__call__`, so that the warnings point at the line that called the attack.
        """
        if self._settled is not None:
            adversarial = torch.where(self._settled[:, None, None, None], self._images, adversarial)
        if self._flat:
            warnings.warn(
                "the logits do not depend on the images in a differentiable way, so the attack has no gradient to "
                "follow: look for torch.no_grad, detach or a step function in the model",
                RuntimeWarning,
                stacklevel=3,
            )
        broken = int(self.broken.sum())
        if broken:
            warnings.warn(
                f"logits or gradients of {broken} of {len(self._images)} images were not finite, so these images were "
                "hardly attacked: look for overflow, 0 / 0, log(0) or sqrt(0) in the model",
                RuntimeWarning,
                stacklevel=3,
            )
        return check_result(threat, self._images, adversarial)


def unit_l1(gradients: Tensor) -> Tensor:
    """Gradients (N, C, H, W) divided by the sums of their sizes, taken in float64; zero stays zero."""
    sums = gradients.abs().sum(dim=_PIXELS, keepdim=True, dtype=torch.float64)
    return (gradients / sums.clamp_(min=1e-300)).to(gradients.dtype)


def _widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
