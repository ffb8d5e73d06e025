"""The one place where attacks call a model and differentiate it."""

import warnings

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_labels, check_logits, check_result
from robust_attacks.losses import Loss, Targeted, succeeded
from robust_attacks.threats import Threat

_PIXELS = (1, 2, 3)


class Objective:
    """A model's loss as a function of images, for one call of an attack, and what is to be said at its end.

    Args:
        model: images to logits.
        loss: what the attacker increases.
        images: all images of the call, (N, C, H, W).
    """

    def __init__(self, model: Model, loss: Loss, images: Tensor) -> None:
        self._model = model
        self._loss = loss
        self._images = images
        self._first = True
        self._flat = False
        self._settled: Tensor | None = None
        self._broken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
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
        return torch.zeros_like(self._broken) if self._settled is None else self._settled

    def logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) of the images, checked. The first call checks the range of the labels as well.

        With a targeted loss the first call must be about the clean images.
        """
        logits = self._model(images)
        check_logits(logits, images)
        if self._first:
            check_labels(labels, images, classes=logits.shape[1])
            if isinstance(self._loss, Targeted):
                self._settled = succeeded(self._loss, logits.detach(), labels)
            self._first = False
        self._broken[self._rows] |= ~logits.detach().isfinite().all(dim=1)
        return logits

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

        One forward and one backward pass. The sum, unlike the mean, keeps images independent of the batch size.
        NaN counts as zero, so that an image with broken gradients stays where it is; `finish` speaks of it.
        """
        leaf = images.detach().requires_grad_()
        logits = self.logits(leaf, labels)
        total = self.losses(logits, labels).sum()
        gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None:
            self._flat = True
            return torch.zeros_like(images), logits.detach()
        largest = gradient.abs().amax(dim=_PIXELS)
        self._broken[self._rows] |= ~largest.isfinite()
        return gradient.nan_to_num_(nan=0.0), logits.detach()

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
        broken = int(self._broken.sum())
        if broken:
            warnings.warn(
                f"logits or gradients of {broken} of {len(self._images)} images were not finite, so these images were "
                "hardly attacked: look for overflow, 0 / 0, log(0) or sqrt(0) in the model",
                RuntimeWarning,
                stacklevel=3,
            )
        return check_result(threat, self._images, adversarial)
