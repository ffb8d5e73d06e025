"""Corrupt images as ImageNet-C does, with draws that belong to the image."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench.corruptions.checks import (
    check_floats,
    check_ids,
    check_images,
    check_levels,
    check_names,
    check_size,
    one_per_image,
    warn_of_size,
)
from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.jpeg import store_as_jpeg85
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.presets import SEVERITIES, constant_of
from robust_bench.corruptions.table import find

Precision = Literal["float32", "double"]

# Values that are worked on at once: few images of ImageNet's size for each thread stay in a CPU's cache and still make
# the cost of a call small; a GPU wants more.
_CHUNK = 4 * 3 * 224 * 224
_MOST_THREADS = 4
_DEVICE_CHUNK = 64 * 3 * 224 * 224


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
    store_jpeg85: bool = False,
    frost: str | Path = "procedural",
) -> Tensor:
    """Corrupt uint8 images; uint8 images of the same shape come back.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
    2019, arXiv:1903.12261. Every random number is a function of the seed, the image's id, the corruption, the severity
    and its purpose: batch size, order and device do not matter, and torch's global random state is not touched.

    Args:
        images: uint8 (N, 3, H, W), or (N, 1, H, W), which is treated as three equal channels of which one is kept.
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1..5, or an integer tensor (N,) of them.
        preset: whose constants: "imagenet" (224 pixels), "tiny_imagenet" (64) or "cifar" (32 and less). They are in
            pixels and never scaled.
        variant: "imagenet_c" follows the original script, "imagecorruptions" the package of that name (Michaelis et
            al., arXiv:1907.07484; `imagenet` constants only). They differ in elastic_transform, snow and
            frost.
        seed: of the random draws.
        ids: int64 (N,), each image's number in its data set; None means 0..N-1.
        precision: "double" computes in float64 and truncates exactly, for comparisons.
        store_jpeg85: encode the result as JPEG of quality 85 and decode it, as the published files were stored; not
            for the preset `cifar`, which was published as arrays. On the CPU, whatever the device.
        frost: where the textures of frost come from: "procedural" makes them, "package" reads those of an installed
            `imagecorruptions`, a folder those in it.

    Raises:
        ValueError: if a name, a severity, the shape, the type or the ids are not as said, or the images are too small.
        TypeError: if `images` is not a tensor.

    Examples:
        >>> images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        >>> corrupt(images, "brightness", severity=5, preset="cifar")[0, 0, 0, 0].item()
        176
    """
    corruption = find(name, variant, frost)
    check_names(preset, variant, precision)
    check_images(images)
    check_levels(images)
    check_size(corruption, *images.shape[2:])
    if store_jpeg85 and preset == "cifar":
        raise ValueError("store_jpeg85 is not for the preset 'cifar', whose published set holds arrays: leave it out")
    warn_of_size(preset, *images.shape[2:])
    keys = _keys(ImageRandom(seed, check_ids(ids, len(images))), name, images.device)

    def change(chunk: Tensor, level: int, chosen: slice | Tensor) -> Tensor:
        constant = constant_of(name, level, preset, variant)
        draws = _draw(corruption, level, constant, keys, chosen, chunk.shape)
        return apply_to_levels(corruption, chunk, constant, draws, precision)

    out = _by_chunks(images, one_per_image(severity, len(images)), corruption.one_by_one, change)
    return store_as_jpeg85(out) if store_jpeg85 else out


def sample(
    name: str,
    severity: int | Tensor,
    shape: Sequence[int],
    *,
    random: ImageRandom,
    preset: str = "imagenet",
    variant: str = "imagenet_c",
    frost: str | Path = "procedural",
    device: torch.device | str | None = None,
) -> Draws:
    """Draw the random numbers that `apply` needs for images of `shape` (N, C, H, W), on `device`.

    Raises:
        ValueError: if a name, a severity or the shape is not as said, or the images are too small.
    """
    corruption = find(name, variant, frost)
    check_names(preset, variant)
    if len(shape) != 4:
        raise ValueError(f"shape must be (N, C, H, W), got {tuple(shape)}")
    check_size(corruption, *shape[2:])
    severities = one_per_image(severity, shape[0])
    if random.ids is None:
        random = ImageRandom(random.seed, torch.arange(shape[0]))
    keys = _keys(random, name, torch.device("cpu" if device is None else device))
    parts: list[tuple[Tensor, Draws]] = []
    for level in SEVERITIES:
        chosen = torch.nonzero(severities == level)[:, 0]
        if len(chosen) or (level == SEVERITIES[0] and shape[0] == 0):
            constant = constant_of(name, level, preset, variant)
            parts.append((chosen, _draw(corruption, level, constant, keys, chosen, (len(chosen), *shape[1:]))))
    if len(parts) == 1:
        return parts[0][1]
    return Draws.joined([draws for _, draws in parts])[torch.argsort(torch.cat([chosen for chosen, _ in parts]))]


def apply(
    name: str,
    images: Tensor,
    severity: int | Tensor,
    draws: Draws,
    *,
    preset: str = "imagenet",
    variant: str = "imagenet_c",
    precision: Precision = "float32",
    frost: str | Path = "procedural",
) -> Tensor:
    """Corrupt with given draws; the result depends on the arguments alone.

    Args:
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        images: (N, C, H, W), C 1 or 3. uint8 gives uint8: the result is clipped, multiplied by 255 and truncated, as
            published. Floats in [0, 1] give floats of the same type, clipped but not truncated, except where the
            operation itself works on grey levels (pixelate, jpeg_compression, and steps of glass_blur, motion_blur,
            snow and spatter). 16-bit floats are computed in float32.
        severity: 1..5, or an integer tensor (N,).
        draws: from `sample`, or made elsewhere.
        preset: see `corrupt`.
        variant: see `corrupt`.
        precision: see `corrupt`; for uint8 images only, floats keep their own type.
        frost: see `corrupt`.

    Raises:
        ValueError: if a name, a severity, a shape, the type or the range of the images is not as said, or the images
            are too small.
        TypeError: if `images` is not a tensor.
    """
    corruption = find(name, variant, frost)
    check_names(preset, variant, precision)
    check_images(images)
    if images.dtype != torch.uint8:
        check_floats(images)
    check_size(corruption, *images.shape[2:])
    warn_of_size(preset, *images.shape[2:])
    if len(draws) != len(images):
        raise ValueError(f"one set of draws per image is needed, got {len(draws)} for {len(images)} images")

    def change(chunk: Tensor, level: int, chosen: slice | Tensor) -> Tensor:
        constant = constant_of(name, level, preset, variant)
        if chunk.dtype == torch.uint8:
            return apply_to_levels(corruption, chunk, constant, draws[chosen], precision)
        wide = chunk.to(torch.promote_types(chunk.dtype, torch.float32))
        return corruption.apply(wide, constant, draws[chosen]).clamp_(0.0, 1.0)

    return _by_chunks(images, one_per_image(severity, len(images)), corruption.one_by_one, change)


def _keys(random: ImageRandom, name: str, device: torch.device) -> Callable[[int, str], Tensor]:
    """Give the keys of all images for a severity and a purpose, on `device`; each is made once."""

    @functools.cache
    def keys(level: int, purpose: str) -> Tensor:
        return random.keys(f"corruption/{name}/{level}/{purpose}").to(device, non_blocking=True)

    return keys


def _draw(
    corruption: Corruption,
    level: int,
    constant: object,
    keys: Callable[[int, str], Tensor],
    chosen: slice | Tensor,
    shape: Sequence[int],
) -> Draws:
    count, channels, height, width = shape
    fields = corruption.sample(lambda purpose: keys(level, purpose)[chosen], (channels, height, width), constant)
    return Draws(count=count, fields=fields)


def apply_to_levels(
    corruption: Corruption, levels: Tensor, constant: object, draws: Draws, precision: Precision
) -> Tensor:
    """Corrupt contiguous uint8 images by a corruption's own operation; nothing is checked."""
    if corruption.apply_levels is not None:
        return corruption.apply_levels(levels, constant, draws)
    dtype = torch.float32 if precision == "float32" else torch.float64
    return truncate(corruption.apply(unit(levels, dtype), constant, draws))


def images_at_once(images: Tensor) -> int:
    """How many images of this size stay in the cache together."""
    on_cpu = images.device.type == "cpu"
    values = _CHUNK * min(torch.get_num_threads(), _MOST_THREADS) if on_cpu else _DEVICE_CHUNK
    return max(1, values // math.prod(images.shape[1:]))


def _by_chunks(
    images: Tensor, severities: Tensor, whole: bool, change: Callable[[Tensor, int, slice | Tensor], Tensor]
) -> Tensor:
    """Change the images chunk by chunk, `change(images, severity, where)`, in their own type even under autocast."""
    out: Tensor | None = None
    with torch.autocast(images.device.type, enabled=False):
        for level, chosen in _chunks(severities, images, whole):
            changed = change(images[chosen].contiguous(), level, chosen)
            if len(changed) == len(images) and isinstance(chosen, slice):
                return changed.to(images.dtype)
            if out is None:
                out = torch.empty_like(images, memory_format=torch.contiguous_format)
            out[chosen] = changed
    return torch.empty_like(images) if out is None else out


def _chunks(severities: Tensor, images: Tensor, whole: bool) -> Iterator[tuple[int, slice | Tensor]]:
    """Cut the batch into chunks of one severity that stay in the cache: slices where possible, else indices.

    With `whole` they are as large as can be.
    """
    size = max(1, len(images)) if whole else images_at_once(images)
    if len(severities) and bool((severities == severities[0]).all()):
        for start in range(0, len(severities), size):
            yield int(severities[0]), slice(start, start + size)
        return
    for level in SEVERITIES:
        chosen = torch.nonzero(severities == level)[:, 0].to(images.device, non_blocking=True)
        for start in range(0, len(chosen), size):
            yield level, chosen[start : start + size]
