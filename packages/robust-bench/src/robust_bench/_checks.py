"""What goes into an evaluation and what the model returns, checked on every batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K); often a torch.nn.Module. Normalisation is a layer inside it."""


class ModelError(RuntimeError):
    """The model of the user cannot be built, or fails on its first images; the message says which, and why."""


_INSIDE = "give images in [0, 1] and put the mean/std step inside the model (robust_models.Normalize)"


def check_device(device: torch.device | str) -> torch.device:
    """Find the device of this name, and try it.

    Raises:
        ValueError: if there is no such device, or torch cannot use it here.
    """
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise RuntimeError("it holds shapes, but no numbers")
        if found.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no GPU here")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot compute on device {str(device)!r} ({reason}): use device='cpu'") from error
    return found


def check_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Take a batch apart into images and labels.

    Raises:
        TypeError: if it is not a pair of tensors.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        what = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"the data must give pairs (images, labels), got a {what}")
    images, labels = batch
    for name, part in (("images", images), ("labels", labels)):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"the {name} of a batch must be a tensor, got {type(part).__name__}: use ToTensor, or a collate_fn"
            )
    return images, labels


def check_batch(images: Tensor, labels: Tensor, dimensions: int = 4) -> None:
    """Refuse anything but float images (N, C, H, W), or sequences (N, T, C, H, W), with integer labels (N,).

    Raises:
        TypeError: for another dtype.
        ValueError: for another shape.
    """
    if not images.is_floating_point():
        raise TypeError(f"images must be floats in [0, 1], got {images.dtype}: divide 8-bit images by 255")
    if images.ndim != dimensions:
        expected = "(N, C, H, W)" if dimensions == 4 else "(N, T, C, H, W)"
        raise ValueError(f"images must have the shape {expected}, got {tuple(images.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}: use labels.long()")
    if labels.shape != (len(images),):
        raise ValueError(
            f"labels must have the shape ({len(images)},), one index per image, got {tuple(labels.shape)}: "
            "one-hot labels become indices with labels.argmax(1)"
        )


def check_range(images: Tensor) -> None:
    """Refuse images that leave [0, 1].

    Raises:
        ValueError: if they do, or hold NaN.
    """
    if images.numel():
        low, high = torch.stack(torch.aminmax(images)).tolist()  # a GPU is waited for once
        if not (low >= 0.0 and high <= 1.0):  # also true for NaN
            raise ValueError(f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: {_INSIDE}")


def check_logits(logits: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Refuse anything but one row of finite logits per image, with a column for every label.

    Raises:
        TypeError: if it is not a float tensor.
        ValueError: if the shape is wrong, a value is not finite, or a label has no column.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model must return a tensor of logits (N, K), got {type(logits).__name__}: "
            "wrap it, e.g. `lambda images: model(images)[0]`"
        )
    if not logits.is_floating_point():
        raise TypeError(f"the model must return float logits, got {logits.dtype}: return the scores, not the classes")
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"the model must return logits of the shape ({len(images)}, K), one row per image, got "
            f"{tuple(logits.shape)}: a backbone that returns feature maps needs its classifier"
        )
    classes = logits.shape[1]
    found = (*torch.aminmax(labels), torch.isfinite(logits).all())
    low, high, finite = torch.stack([each.to(torch.int64) for each in found]).tolist()  # a GPU is waited for once
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels lie in {low}..{high}, but the model returns {classes} logits: build it for these classes, "
            f"e.g. create_model(..., num_classes={max(high, 0) + 1}), or check that this is the right data set"
        )
    if not finite:
        raise ValueError("the model returned logits that are NaN or infinite: check its weights and its precision")
    return logits
