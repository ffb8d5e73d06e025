"""What goes into an attack and what comes out of a model, checked; and what an attack hands back."""

from collections.abc import Callable

import torch
from torch import Tensor

from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat

Model = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K); often a torch.nn.Module. Normalisation is a layer inside it."""


def check_call(threat: Threat, images: Tensor, labels: Tensor, random: ImageRandom | None) -> ImageRandom:
    """Refuse a wrong call of an attack; hand back the random streams of the images, with a fresh seed for None.

    Raises:
        TypeError: if images, labels or `random` are of a wrong type.
        ValueError: if their shapes or values are wrong, or the threat has radii for another number of images.
    """
    check_images(images)
    check_labels(labels, images)
    if not isinstance(random, ImageRandom | None):
        raise TypeError(
            f"random must be an ImageRandom or None, got {type(random).__name__}: "
            f"pass random=ImageRandom(seed={random if type(random) is int else 0})"
        )
    threat.radii(images)
    return (ImageRandom.fresh(len(images)) if random is None else random).of(images)


def check_images(images: Tensor) -> None:
    """Refuse anything but a finite float batch (N, C, H, W) in [0, 1]; N may be 0.

    Raises:
        TypeError: if `images` is not a float32 or float64 tensor.
        ValueError: if its shape or its values are wrong.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}: use torch.as_tensor(...)")
    if images.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"images must be float32 or float64, got {images.dtype}, which cannot hold small changes: "
            "pass images.float() and let the model lower its own precision; whole numbers become pixels by images / 255"
        )
    if images.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"images must be float32 or float64 in [0, 1], got {images.dtype}: pass images / 255")
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (N, C, H, W), got {tuple(images.shape)}: "
            "a single image becomes a batch by images[None]"
        )
    if 0 in images.shape[1:]:
        raise ValueError(f"images must have pixels, got shape {tuple(images.shape)}")
    if not len(images):
        return
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (abs(low) < torch.inf and abs(high) < torch.inf):
        raise ValueError("images must be finite, got NaN or infinite pixels: look at the code that loads them")
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: "
            "put the mean/std step inside the model (robust_models.Normalize), and divide 8-bit pixels by 255"
        )


def check_labels(labels: Tensor, images: Tensor, classes: int | None = None) -> None:
    """Refuse anything but int64 class indices (N,) on the images' device.

    Args:
        labels: the labels.
        images: the batch (N, C, H, W) that they belong to.
        classes: K; given once the logits are known, the range 0..K-1 is checked as well.

    Raises:
        TypeError: if `labels` is not an int64 tensor.
        ValueError: if its shape, device or values are wrong.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(labels).__name__}: use torch.as_tensor(...)")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64 class indices, got {labels.dtype}: pass labels.long()")
    if labels.shape != (len(images),):
        raise ValueError(
            f"labels must have shape ({len(images)},), one per image, got {tuple(labels.shape)}: "
            "one-hot labels become indices by labels.argmax(1)"
        )
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, images on {images.device}: pass labels.to(images.device)")
    if classes is not None and len(labels):
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels must lie in 0..{classes - 1}, since the model returns {classes} logits, got {low}..{high}"
            )


def check_logits(logits: object, images: Tensor) -> None:
    """Refuse what a model returned unless it is a float tensor (N, K) with K >= 2 and a row for every image.

    Raises:
        TypeError: if it is not a float tensor.
        ValueError: if its shape is wrong.
    """
    if not isinstance(logits, Tensor):
        what = type(logits).__name__
        if isinstance(logits, tuple | list):
            what += f" of {len(logits)}"
        elif isinstance(logits, dict):
            what += f" with the keys {', '.join(map(str, logits))}"
        raise TypeError(
            f"the model must return logits (N, K) as a tensor, it returned a {what}: wrap it in a function that "
            "returns the logits alone, as `lambda images: model(images)[0]`"
        )
    if not logits.is_floating_point():
        raise TypeError(
            f"the model must return float logits (N, K), it returned {logits.dtype}: return the logits, not classes"
        )
    if logits.ndim != 2:
        raise ValueError(
            f"the model must return logits (N, K), it returned shape {tuple(logits.shape)} for {len(images)} images"
            + (": for one output z per image return two logits (0, z)" if logits.ndim == 1 else "")
        )
    if len(logits) != len(images):
        raise ValueError(
            f"the model must return one row of logits per image, it returned {len(logits)} rows "
            f"for {len(images)} images"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            f"the model must return at least 2 logits per image, it returned {logits.shape[1]}: "
            "for one output z return two logits (0, z), as torch.cat([0 * z, z], dim=1)"
        )


def check_result(threat: Threat, images: Tensor, adversarial: Tensor) -> Tensor:
    """Hand back the attacked images in the memory layout of `images`, once they are shown to be inside the threat.

    Distances are measured in float64: Linf with zero tolerance, L2 and L1 within 1e-6 of eps.

    Raises:
        RuntimeError: if they are outside the ball or the box, not finite, or of another shape or dtype. This is
            an error of this package (or of a threat from elsewhere), not of the caller.
    """
    if adversarial.shape != images.shape or adversarial.dtype != images.dtype:
        raise RuntimeError(
            f"internal error: the attack turned {images.dtype} {tuple(images.shape)} "
            f"into {adversarial.dtype} {tuple(adversarial.shape)}"
        )
    if len(images):
        limit = torch.as_tensor(threat.radii(images), dtype=torch.float64, device=images.device).flatten() * (
            1 + threat.tolerance
        )
        excess = (threat.distance(images, adversarial) - limit).max()
        low, high = adversarial.aminmax()
        if not bool((excess <= 0) & (low >= 0) & (high <= 1)):  # also when one of them is NaN
            raise RuntimeError(
                f"internal error: the attacked images leave {threat.name} by {float(excess):.3g} or the box [0, 1]: "
                f"they lie in [{float(low):.9g}, {float(high):.9g}]"
            )
    if adversarial.stride() == images.stride():
        return adversarial
    return torch.empty_like(images).copy_(adversarial)
