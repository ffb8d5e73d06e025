"""What every augmentation does with its images before and after: check them, and work on them as floats."""

import torch
from torch import Tensor


def check_images(images: Tensor) -> None:
    """Refuse what is not a batch (N, C, H, W) of floats in [0, 1] or of uint8.

    The values are looked at on the CPU only: elsewhere that would make the host wait for the device in every step.

    Raises:
        TypeError: if `images` is not a tensor, or neither floating nor uint8.
        ValueError: if its shape or its values are not those of images.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor (N, C, H, W), got {type(images).__name__}")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise TypeError(f"images must be floats in [0, 1] or uint8, got {images.dtype}: images.float() / levels first")
    if images.ndim != 4 or 0 in images.shape[1:]:
        hint = ": images.unsqueeze(0) makes one image a batch" if images.ndim == 3 else ""
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(images.shape)}{hint}")
    if images.is_floating_point() and images.device.type == "cpu" and len(images):
        low, high = (float(x) for x in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # so written that NaN is refused as well
            raise ValueError(
                f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: augment before the mean/std step, which "
                "belongs inside the model; for what comes after APRPair, APRPair(clip=True) keeps to the range"
            )


def as_float(images: Tensor) -> Tensor:
    """Images to compute with: uint8 becomes [0, 1], half precision float32; others as they are, not copied."""
    if images.dtype == torch.uint8:
        return images.float() / 255
    return images.to(torch.promote_types(images.dtype, torch.float32))


def like(images: Tensor, result: Tensor) -> Tensor:
    """Bring a float `result` back to the dtype of `images`; to uint8 by rounding, clipped to its range."""
    if images.dtype == torch.uint8:
        return (result * 255).round().clamp(0, 255).to(torch.uint8)
    return result.to(images.dtype)


def check_share(name: str, value: float) -> None:
    """Refuse a probability or a share outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")


def check_patches(patch_size: int, height: int, width: int) -> None:
    """Refuse images that do not divide into patches."""
    if height % patch_size or width % patch_size:
        raise ValueError(f"patches of {patch_size} pixels must divide both sides of the images, got {height} x {width}")


def those(mask: Tensor) -> Tensor | slice:
    """Index what a mask (N,) chooses: on a CPU that alone; elsewhere all, since counting would make the host wait."""
    return mask.nonzero()[:, 0] if mask.device.type == "cpu" else slice(None)
