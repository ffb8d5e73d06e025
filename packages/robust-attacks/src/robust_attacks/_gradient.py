"""The one place where attacks call a model and differentiate it."""

import warnings

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_labels, check_logits
from robust_attacks.losses import Loss


class Objective:
    """A model's loss as a function of images, with the checks that the first logits make possible.

    Args:
        model: images to logits.
        loss: what the attacker increases.
    """

    def __init__(self, model: Model, loss: Loss) -> None:
        self._model = model
        self._loss = loss
        self._labels_checked = False

    def logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) of the images, checked. The first call checks the range of the labels as well."""
        logits = self._model(images)
        check_logits(logits, images)
        if not self._labels_checked:
            check_labels(labels, images, classes=logits.shape[1])
            self._labels_checked = True
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
        NaN counts as zero, so that an image with broken gradients stays where it is.
        """
        leaf = images.detach().requires_grad_()
        logits = self.logits(leaf, labels)
        total = self.losses(logits, labels).sum()
        gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None:
            warnings.warn(
                "the logits do not depend on the images in a differentiable way, so the attack has no gradient to "
                "follow: look for torch.no_grad, detach or a step function in the model",
                RuntimeWarning,
                stacklevel=4,
            )
            return torch.zeros_like(images), logits.detach()
        return gradient.nan_to_num_(nan=0.0), logits.detach()
