"""JPEG, as libjpeg writes and reads it through Pillow."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.pillow import picture, write_planes

_HALF_COLOUR = 2  # Pillow's number for 4:2:0, colour at half the resolution, which is also what it takes by itself


def jpeg_compression_levels(levels: Tensor, quality: int, _draws: Draws) -> Tensor:
    """Write uint8 images as JPEG with colour at half the resolution (4:2:0) and read them again, on the CPU."""
    planes = levels.cpu().contiguous().numpy()
    out = np.empty_like(planes)
    for image, result in zip(planes, out, strict=True):
        file = io.BytesIO()
        picture(image).save(file, "JPEG", quality=quality, subsampling=_HALF_COLOUR)
        with Image.open(file) as read:
            write_planes(read, result)
    return torch.from_numpy(out).to(levels.device)


def jpeg_compression(images: Tensor, quality: int, draws: Draws) -> Tensor:
    """Do the same to float images; their grey levels are truncated to 8 bits first, as the operation demands."""
    return unit(jpeg_compression_levels(truncate(images), quality, draws), images.dtype)


def store_as_jpeg85(levels: Tensor) -> Tensor:
    """Write and read uint8 images as the files of ImageNet-C and Tiny-ImageNet-C were: quality 85."""
    return jpeg_compression_levels(levels, 85, Draws(count=len(levels), fields={}))
