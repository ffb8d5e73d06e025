"""Labels of training: class indices, or one probability per class where images or labels were mixed or smoothed."""

import torch
from torch import Tensor

from robust_attacks._checks import check_call, check_images
from robust_attacks.losses import Loss
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf

BOX = Linf(eps=1.0)  # what an attack may do that only promises to stay in [0, 1]
_TOLERANCE = 1e-3  # of the sum of a row: enough for labels that were mixed in half precision


def check_training_call(images: Tensor, labels: Tensor, random: ImageRandom | None) -> tuple[Tensor, ImageRandom]:
    """Refuse a wrong call of a training attack, whose labels may be hard (N,) or soft (N, K).

    Returns:
        Hard labels, int64 (N,): the given ones, or the likeliest classes of soft ones. And the images' random streams.

    Raises:
        TypeError: if images, labels or `random` are of a wrong type.
        ValueError: if their shapes or values are wrong.
    """
    hard = labels
    if is_soft(labels):
        check_images(images)
        check_soft_labels(labels, images)
        hard = labels.argmax(dim=1)
    return hard, check_call(BOX, images, hard, random)


def is_soft(labels: object) -> bool:
    """Whether these are meant as soft labels: a float tensor of two dimensions."""
    return isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim == 2


def check_soft_labels(labels: Tensor, images: Tensor) -> None:
    """Refuse anything but one distribution over K >= 2 classes per image, on the images' device.

    Raises:
        TypeError: if they are neither float32 nor float64.
        ValueError: if their shape, device or values are wrong.
    """
    if labels.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"soft labels must be float32 or float64, got {labels.dtype}: pass labels.float()")
    if len(labels) != len(images) or labels.shape[1] < 2:
        raise ValueError(
            f"soft labels must have shape ({len(images)}, K), one row of K >= 2 probabilities per image, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, images on {images.device}: pass labels.to(images.device)")
    if not len(labels):
        return
    sums = labels.detach().sum(dim=1, dtype=torch.float64)
    low, error = float(labels.detach().amin()), float((sums - 1).abs().amax())
    if not (low >= 0 and error <= _TOLERANCE):  # also when they are NaN
        raise ValueError(
            "soft labels must be probabilities, every row >= 0 and 1 in sum, "
            f"got a least value of {low:.4g} and a sum that is off by {error:.4g}: logits become them by softmax(1)"
        )


def bound(loss: Loss, labels: Tensor) -> Loss:
    """The loss with respect to given soft labels (N, K), whatever labels it is called with; hard labels change nothing.

    Losses of this package are functions of logits and hard labels; `cross_entropy` takes probabilities as well, and so
    must any loss that meets soft labels.
    """
    if not is_soft(labels):
        return loss

    def soft(logits: Tensor, _: Tensor) -> Tensor:
        check_classes(labels, logits)
        return loss(logits, labels.to(torch.promote_types(logits.dtype, torch.float32)))

    return soft


def check_classes(labels: Tensor, logits: Tensor) -> None:
    """Refuse soft labels (N, K) of another K than the logits'; hard labels pass.

    Raises:
        ValueError: if the numbers of classes differ.
    """
    if is_soft(labels) and logits.shape[1] != labels.shape[1]:
        raise ValueError(
            f"soft labels have {labels.shape[1]} classes, but the model returns {logits.shape[1]} logits per image"
        )
