"""Arguments of the corruptions: what is refused, and what is warned of."""

import warnings

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.presets import PRESETS, fits
from robust_bench.corruptions.table import available


class SizeWarning(UserWarning):
    """The preset's constants were made for images of another size."""


def check_names(preset: str, variant: str, precision: str = "float32") -> None:
    """Refuse an unknown preset or precision, and a variant that has no such preset."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    if variant == "imagecorruptions" and preset != "imagenet":
        raise ValueError(f"variant 'imagecorruptions' exists with preset 'imagenet' only, got {preset!r}")
    if precision not in ("float32", "double"):
        raise ValueError(f"precision must be 'float32' or 'double', got {precision!r}")


def check_images(images: Tensor) -> None:
    """Refuse what is not a batch of grey or RGB images."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch tensor (N, C, H, W), got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        hint = ": drop the alpha channel with images[:, :3]" if images.ndim == 4 and images.shape[1] == 4 else ""
        raise ValueError(f"images must have the shape (N, 3, H, W) or (N, 1, H, W), got {tuple(images.shape)}{hint}")


def check_levels(images: Tensor) -> None:
    """Refuse images that are not uint8."""
    if images.dtype != torch.uint8:
        raise ValueError(
            f"corrupt takes uint8 images, got {images.dtype}: convert with (images * 255).round().to(torch.uint8), "
            "or use sample and apply, which take floats in [0, 1]"
        )


def check_floats(images: Tensor) -> None:
    """Refuse images that are not floats in [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8, or floats in [0, 1], got {images.dtype}")
    if images.numel():
        low, high = (float(bound) for bound in torch.aminmax(images))
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                f"float images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: divide 8-bit values by 255, and put "
                "the mean/std step inside the model (robust_models.Normalize)"
            )


def check_size(corruption: Corruption, height: int, width: int) -> None:
    """Refuse images that are smaller than the operation takes."""
    if min(height, width) < corruption.smallest:
        raise ValueError(
            f"{corruption.name} needs images of {corruption.smallest} pixels a side or more, got {height} x {width}: "
            f"at this size there are {', '.join(available(height, width))}"
        )


def warn_of_size(preset: str, height: int, width: int) -> None:
    """Warn where the constants were made for images of quite another size."""
    if not fits(preset, height, width):
        warnings.warn(
            f"the constants of preset {preset!r} were made for {PRESETS[preset].size} pixels and are not scaled, "
            f"the images have {height} x {width}: choose another of {', '.join(PRESETS)}, or resize",
            SizeWarning,
            stacklevel=3,
        )


def one_per_image(severity: int | Tensor, count: int) -> Tensor:
    """Give the severity of every image, int64 (N,) on the CPU."""
    if isinstance(severity, Tensor):
        if severity.shape != (count,) or severity.is_floating_point() or severity.dtype == torch.bool:
            raise ValueError(
                f"severity must be an int, or an integer tensor of one per image ({count},), "
                f"got {severity.dtype} {tuple(severity.shape)}"
            )
        severities = severity.to("cpu", torch.int64)
    else:
        if isinstance(severity, bool) or not isinstance(severity, int):
            raise ValueError(f"severity must be an int from 1 to 5, got {severity!r}")
        severities = torch.full((count,), severity)
    if count and not bool(((severities >= 1) & (severities <= 5)).all()):
        raise ValueError(f"severity must lie in 1..5, got {sorted(set(severities.tolist()))}")
    return severities


def check_ids(ids: Tensor | None, count: int) -> Tensor:
    """Give the id of every image, int64 (N,) on the CPU; None numbers them from 0."""
    if ids is None:
        return torch.arange(count)
    if ids.shape != (count,) or ids.dtype != torch.int64:
        raise ValueError(f"ids must be int64 of one per image ({count},), got {ids.dtype} {tuple(ids.shape)}")
    return ids.cpu()
