"""Textures of frost, scaled for the images that they are laid over, and windows of them."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robust_bench.corruptions.frost_sources import load

_SPARE = 1.1  # how much larger than the image a texture is made that would not cover it


@dataclass(frozen=True, kw_only=True)
class Textures:
    """Textures of one scale on one device.

    Args:
        levels: uint8 (K, 3, H, W); smaller ones are filled up with 0 on the right and below.
        sizes: height and width of each without the filling, int64 (K, 2).
    """

    levels: Tensor
    sizes: Tensor

    def crops(self, index: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
        """Cut a window of each chosen texture, uint8 (N, 3, height, width).

        Args:
            index: which texture, int64 (N,).
            corner: top and left of the window, int64 (N, 2).
            height: of the window.
            width: of the window.
        """
        if self.levels.device.type != "cpu":
            return self._gathered(index, corner, height, width)
        places = zip(index.tolist(), corner.tolist(), strict=True)  # slices are ten times faster there
        crops = [self.levels[which, :, top:, left:][:, :height, :width] for which, (top, left) in places]
        return torch.stack(crops) if crops else self.levels.new_empty(0, 3, height, width)

    def _gathered(self, index: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
        """Do the same on a GPU, without waiting for where the windows lie."""
        windows = self.levels.unfold(2, height, 1).unfold(3, width, 1)
        return windows[index, :, corner[:, 0], corner[:, 1]]


def textures(source: str | Path, variant: str, scale: float, height: int, width: int, device: torch.device) -> Textures:
    """Load the textures of a source and scale them for images of a size; both are done once.

    In the variant "imagecorruptions" textures are enlarged until they cover the image, and then by 1.1; in the variant
    "imagenet_c" this happens only to those that are not larger than the image.

    Args:
        source: "procedural", "package" or a folder.
        variant: "imagenet_c" or "imagecorruptions".
        scale: what the textures are shrunk by first, without smoothing, as the published scripts do.
        height: of the images.
        width: of the images.
        device: where the textures shall be.

    Raises:
        ValueError: if there are no textures; the message says how to get some.
    """
    pictures = _scaled(source, scale)
    sizes = tuple(_size(picture, variant, height, width) for picture in pictures)
    return _enlarged(source, scale, sizes, device)


def _size(picture: Tensor, variant: str, image_height: int, image_width: int) -> tuple[int, int]:
    height, width = picture.shape[1:]
    if variant == "imagenet_c" and height > image_height and width > image_width:
        return height, width
    factor = max(1.0, image_height / height, image_width / width) * _SPARE
    return math.ceil(height * factor), math.ceil(width * factor)


@functools.lru_cache(maxsize=16)
def _enlarged(source: str | Path, scale: float, sizes: tuple[tuple[int, int], ...], device: torch.device) -> Textures:
    pictures = [_resized(picture, size) for picture, size in zip(_scaled(source, scale), sizes, strict=True)]
    largest = [max(sides) for sides in zip(*sizes, strict=True)]
    levels = torch.zeros(len(pictures), 3, *largest, dtype=torch.uint8)
    for place, picture in zip(levels, pictures, strict=True):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    return Textures(levels=levels.to(device), sizes=torch.tensor(sizes, device=device))


@functools.lru_cache(maxsize=8)
def _scaled(source: str | Path, scale: float) -> tuple[Tensor, ...]:
    pictures = load(source)
    if scale == 1:
        return pictures
    # The coordinates follow from the scale itself, not from the rounded sizes, as in OpenCV.
    return tuple(
        _levels(interpolate(picture[None].double(), scale_factor=scale, mode="bilinear", recompute_scale_factor=False))
        for picture in pictures
    )


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if picture.shape[1:] == size:
        return picture
    return _levels(interpolate(picture[None].double(), size=size, mode="bicubic"))


def _levels(picture: Tensor) -> Tensor:
    return picture[0].round_().clamp_(0, 255).to(torch.uint8)
