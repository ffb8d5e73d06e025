"""JPEG, as libjpeg writes and reads it through Pillow."""

import io

from PIL import Image
from torch import Tensor

from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.pillow import through_pictures

_HALF_COLOUR = 2  # Pillow's number for 4:2:0, colour at half the resolution, which is also what it takes by itself


def jpeg_compression_levels(levels: Tensor, quality: int, _draws: Draws) -> Tensor:
    """Write uint8 images as JPEG with colour at half the resolution (4:2:0) and read them again, on the CPU."""

    def written_and_read(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=_HALF_COLOUR)
        return Image.open(file, formats=("JPEG",))

    return through_pictures(levels, written_and_read, *levels.shape[2:])


def jpeg_compression(images: Tensor, quality: int, draws: Draws) -> Tensor:
    """Do the same to float images; their grey levels are truncated to 8 bits first, as the operation demands."""
    return unit(jpeg_compression_levels(truncate(images), quality, draws), images.dtype)


def store_as_jpeg85(levels: Tensor) -> Tensor:
    """Write and read uint8 images as the files of ImageNet-C and Tiny-ImageNet-C were: quality 85."""
    return jpeg_compression_levels(levels, 85, Draws(count=len(levels), fields={}))
