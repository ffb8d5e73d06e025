"""Frost: a texture of ice laid over the image."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import LARGE, Corruption, Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import fine_uniform_field
from robust_bench.corruptions.frost_textures import textures

Constant = tuple[float, float, float]


@functools.lru_cache(maxsize=8)
def frost_corruption(source: str | Path = "procedural", variant: str = "imagenet_c") -> Corruption:
    """Give the corruption frost with the textures of a source.

    Args:
        source: "procedural" makes them, "package" reads those of an installed `imagecorruptions`, a folder those in
            it, of which the first five by name are used, as published.
        variant: "imagenet_c" or "imagecorruptions", which enlarges the textures by 1.1 or more.
    """
    return Corruption(
        name="frost",
        group="weather",
        apply=functools.partial(frost, source=source, variant=variant),
        sample=functools.partial(sample_frost, source=source, variant=variant),
        smallest=LARGE,
    )


def sample_frost(key: Key, shape: Shape, constant: Constant, *, source: str | Path, variant: str) -> dict[str, Tensor]:
    """Draw which texture, (N,), and the top and left of the crop, (N, 2), both int64."""
    _, height, width = shape
    chance = fine_uniform_field(key("crop"), (3,))
    found = textures(source, variant, constant[2], height, width, chance.device)
    index = (chance[:, 0] * len(found.levels)).long()
    rows, columns = found.sizes[index].unbind(1)
    top, left = chance[:, 1] * (rows - height), chance[:, 2] * (columns - width)
    return {"texture": index, "corner": torch.stack([top, left], dim=1).long()}


def frost(images: Tensor, constant: Constant, draws: Draws, *, source: str | Path, variant: str) -> Tensor:
    """Add a crop of a texture to the image: share of the image + strength of the texture.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        constant: share of the image, strength of the texture, scale of the texture.
        draws: "texture" (N,) and "corner" (N, 2), int64.
        source: see `frost_corruption`.
        variant: see `frost_corruption`.
    """
    share, strength, scale = constant
    count, channels, height, width = images.shape
    found = textures(source, variant, scale, height, width, images.device)
    index, corner = draws.field("texture", (count,)), draws.field("corner", (count, 2))
    crops = found.crops(index.to(images.device), corner.to(images.device), height, width)[:, :channels]
    return crops.to(images.dtype).mul_(strength / 255.0).add_(images, alpha=share)
