"""Corrupt images as ImageNet-C does, with draws that belong to the image."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.digital import DIGITAL
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.noise import NOISE
from robust_bench.corruptions.presets import PRESETS, SEVERITIES, fits
from robust_bench.corruptions.weather import WEATHER

Precision = Literal["float32", "double"]
VARIANTS = ("imagenet_c", "imagecorruptions")

_TABLE = {corruption.name: corruption for corruption in (*NOISE, *WEATHER, *DIGITAL)}
CORRUPTIONS = tuple(_TABLE)
GROUPS = {name: corruption.group for name, corruption in _TABLE.items()}

_CHUNK = 2 * 3 * 224 * 224  # values that are worked on at once: two images of ImageNet's size stay in the cache
_KEEP = 1e-6  # added before truncation, in [0, 1] units: rounding in float32 must not lower an exact grey level


class SizeWarning(UserWarning):
    """The preset's constants were made for images of another size."""


def corrupt(
    images: Tensor,
    name: str,
    severity: int | Tensor = 3,
    preset: str = "imagenet",
    variant: str = "imagenet_c",
    seed: int = 0,
    ids: Tensor | None = None,
    *,
    precision: Precision = "float32",
) -> Tensor:
    """Corrupt uint8 images; uint8 images of the same shape come back.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
    2019, arXiv:1903.12261. Every random number is a function of the seed, the image's id, the corruption, the severity
    and its purpose: batch size, order and device do not matter, and torch's global random state is not touched.

    Args:
        images: uint8 (N, 3, H, W), or (N, 1, H, W), which is treated as three equal channels of which one is kept.
        name: one of `CORRUPTIONS`.
        severity: 1..5, or an integer tensor (N,) of them.
        preset: whose constants: "imagenet" (224 pixels), "tiny_imagenet" (64) or "cifar" (32 and less). They are in
            pixels and never scaled.
        variant: "imagenet_c" follows the original script, "imagecorruptions" the package of that name (`imagenet`
            constants only). For the corruptions that exist so far they agree.
        seed: of the random draws.
        ids: int64 (N,), each image's number in its data set; None means 0..N-1.
        precision: "double" computes in float64 and truncates exactly, for comparisons.

    Raises:
        ValueError: if a name, a severity, the shape, the type or the ids are not as said.
        TypeError: if `images` is not a tensor.

    Examples:
        >>> images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        >>> corrupt(images, "brightness", severity=5, preset="cifar")[0, 0, 0, 0].item()
        176
    """
    corruption = _check(name, preset, variant, precision)
    _check_levels(images)
    _check_size(images, preset)
    keys = _keys(ImageRandom(seed, _ids(ids, len(images))), name, images.device)
    severities = _severities(severity, len(images))
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for level, chosen in _chunks(severities, images):
        chunk = images[chosen]
        draws = _draw(corruption, level, preset, keys, chosen, chunk.shape)
        out[chosen] = _apply_levels(corruption, chunk, PRESETS[preset].constants[name][level - 1], draws, precision)
    return out


def sample(
    name: str,
    severity: int | Tensor,
    shape: Sequence[int],
    *,
    random: ImageRandom,
    preset: str = "imagenet",
    variant: str = "imagenet_c",
    device: torch.device | str | None = None,
) -> Draws:
    """Draw the random numbers that `apply` needs for images of `shape` (N, C, H, W), on `device`.

    Raises:
        ValueError: if a name, a severity or the shape is not as said.
    """
    corruption = _check(name, preset, variant, "float32")
    if len(shape) != 4:
        raise ValueError(f"shape must be (N, C, H, W), got {tuple(shape)}")
    severities = _severities(severity, shape[0])
    if random.ids is None:
        random = ImageRandom(random.seed, torch.arange(shape[0]))
    keys = _keys(random, name, torch.device("cpu" if device is None else device))
    parts: list[tuple[Tensor, Draws]] = []
    for level in SEVERITIES:
        chosen = torch.nonzero(severities == level)[:, 0]
        if len(chosen) or (level == SEVERITIES[0] and shape[0] == 0):
            parts.append((chosen, _draw(corruption, level, preset, keys, chosen, (len(chosen), *shape[1:]))))
    order = torch.argsort(torch.cat([chosen for chosen, _ in parts]))
    fields = {
        field: torch.cat([draws.fields[field] for _, draws in parts])[order.to(some.device)]
        for field, some in parts[0][1].fields.items()
    }
    return Draws(count=shape[0], fields=fields)


def apply(
    name: str,
    images: Tensor,
    severity: int | Tensor,
    draws: Draws,
    *,
    preset: str = "imagenet",
    variant: str = "imagenet_c",
    precision: Precision = "float32",
) -> Tensor:
    """Corrupt with given draws; the result depends on the arguments alone.

    Args:
        name: one of `CORRUPTIONS`.
        images: (N, C, H, W), C 1 or 3. uint8 gives uint8: the result is clipped, multiplied by 255 and truncated, as
            published. Floats in [0, 1] give floats of the same type, clipped but not truncated, except where the
            operation itself works on grey levels (pixelate).
        severity: 1..5, or an integer tensor (N,).
        draws: from `sample`, or made elsewhere.
        preset: see `corrupt`.
        variant: see `corrupt`.
        precision: see `corrupt`; for uint8 images only, floats keep their own type.

    Raises:
        ValueError: if a name, a severity, a shape, the type or the range of the images is not as said.
        TypeError: if `images` is not a tensor.
    """
    corruption = _check(name, preset, variant, precision)
    _check_shape(images)
    if images.dtype != torch.uint8:
        _check_floats(images)
    _check_size(images, preset)
    if len(draws) != len(images):
        raise ValueError(f"one set of draws per image is needed, got {len(draws)} for {len(images)} images")
    severities = _severities(severity, len(images))
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for level, chosen in _chunks(severities, images):
        constant, chunk, some = PRESETS[preset].constants[name][level - 1], images[chosen], draws[chosen]
        if images.dtype == torch.uint8:
            out[chosen] = _apply_levels(corruption, chunk, constant, some, precision)
        else:
            out[chosen] = corruption.apply(chunk, constant, some).clamp_(0.0, 1.0)
    return out


def _keys(random: ImageRandom, name: str, device: torch.device) -> Callable[[int, str], Tensor]:
    """Give the keys of all images for a severity and a purpose, on `device`; each is made once."""

    @functools.cache
    def keys(level: int, purpose: str) -> Tensor:
        return random.keys(f"corruption/{name}/{level}/{purpose}").to(device)

    return keys


def _draw(
    corruption: Corruption,
    level: int,
    preset: str,
    keys: Callable[[int, str], Tensor],
    chosen: slice | Tensor,
    shape: Sequence[int],
) -> Draws:
    count, channels, height, width = shape
    constant = PRESETS[preset].constants[corruption.name][level - 1]
    fields = corruption.sample(lambda purpose: keys(level, purpose)[chosen], (channels, height, width), constant)
    return Draws(count=count, fields=fields)


def _apply_levels(
    corruption: Corruption, levels: Tensor, constant: float, draws: Draws, precision: Precision
) -> Tensor:
    if corruption.apply_levels is not None:
        return corruption.apply_levels(levels, constant)
    dtype, keep = (torch.float32, _KEEP) if precision == "float32" else (torch.float64, 0.0)
    out = corruption.apply(levels.to(dtype).div_(255.0), constant, draws)
    return out.clamp_(0.0, 1.0).add_(keep).mul_(255.0).to(torch.uint8)


def _chunks(severities: Tensor, images: Tensor) -> Iterator[tuple[int, slice | Tensor]]:
    """Cut the batch into chunks of one severity that stay in the cache: slices where possible, else indices."""
    size = max(1, _CHUNK // max(1, math.prod(images.shape[1:])))
    if len(severities) and bool((severities == severities[0]).all()):
        for start in range(0, len(severities), size):
            yield int(severities[0]), slice(start, start + size)
        return
    for level in SEVERITIES:
        chosen = torch.nonzero(severities == level)[:, 0].to(images.device)
        for start in range(0, len(chosen), size):
            yield level, chosen[start : start + size]


def _check(name: str, preset: str, variant: str, precision: str) -> Corruption:
    if name not in _TABLE:
        raise ValueError(f"unknown corruption {name!r}: choose from {', '.join(CORRUPTIONS)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if variant == "imagecorruptions" and preset != "imagenet":
        raise ValueError(f"variant 'imagecorruptions' exists with preset 'imagenet' only, got {preset!r}")
    if precision not in ("float32", "double"):
        raise ValueError(f"precision must be 'float32' or 'double', got {precision!r}")
    return _TABLE[name]


def _check_shape(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch tensor (N, C, H, W), got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        hint = ": drop the alpha channel with images[:, :3]" if images.ndim == 4 and images.shape[1] == 4 else ""
        raise ValueError(f"images must have the shape (N, 3, H, W) or (N, 1, H, W), got {tuple(images.shape)}{hint}")


def _check_levels(images: Tensor) -> None:
    _check_shape(images)
    if images.dtype != torch.uint8:
        raise ValueError(
            f"corrupt takes uint8 images, got {images.dtype}: convert with (images * 255).round().to(torch.uint8), "
            "or use sample and apply, which take floats in [0, 1]"
        )


def _check_floats(images: Tensor) -> None:
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8, or floats in [0, 1], got {images.dtype}")
    if images.numel():
        low, high = (float(bound) for bound in torch.aminmax(images))
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                f"float images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: divide 8-bit values by 255, and put "
                "the mean/std step inside the model (robust_models.Normalize)"
            )


def _check_size(images: Tensor, preset: str) -> None:
    height, width = images.shape[2:]
    if not fits(preset, height, width):
        warnings.warn(
            f"the constants of preset {preset!r} were made for {PRESETS[preset].size} pixels and are not scaled, "
            f"the images have {height} x {width}: choose another of {', '.join(PRESETS)}, or resize",
            SizeWarning,
            stacklevel=3,
        )


def _severities(severity: int | Tensor, count: int) -> Tensor:
    if isinstance(severity, Tensor):
        if severity.shape != (count,) or severity.is_floating_point() or severity.dtype == torch.bool:
            raise ValueError(
                f"severity must be an int, or an integer tensor of one per image ({count},), "
                f"got {severity.dtype} {tuple(severity.shape)}"
            )
        severities = severity.cpu()
    else:
        if isinstance(severity, bool) or not isinstance(severity, int):
            raise ValueError(f"severity must be an int from 1 to 5, got {severity!r}")
        severities = torch.full((count,), severity)
    if count and not bool(((severities >= 1) & (severities <= 5)).all()):
        raise ValueError(f"severity must lie in 1..5, got {sorted(set(severities.tolist()))}")
    return severities


def _ids(ids: Tensor | None, count: int) -> Tensor:
    if ids is None:
        return torch.arange(count)
    if ids.shape != (count,) or ids.dtype != torch.int64:
        raise ValueError(f"ids must be int64 of one per image ({count},), got {ids.dtype} {tuple(ids.shape)}")
    return ids.cpu()
