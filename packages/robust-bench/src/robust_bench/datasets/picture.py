"""From the bytes of an image file to the tensor that a model takes."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of the names of image files, in lower case; files that end otherwise are not looked at."""


def is_picture(name: str) -> bool:
    """Whether a file is an image by its name, and not hidden, as those are that macOS leaves beside images.

    Examples:
        >>> [is_picture(name) for name in ("cat.JPEG", "cat.txt", "._cat.jpg")]
        [True, False, False]
    """
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def picture_of(levels: Tensor) -> Any:
    """Make a picture of Pillow from an image, uint8 (3, H, W)."""
    from PIL import Image

    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def read_picture(file: Path | BinaryIO, *, name: str, transform: Callable[[Any], Tensor]) -> Tensor:
    """Read an image file in RGB, and treat it.

    A camera's note on how to turn the image (EXIF orientation) is left aside, as in the evaluation scripts of
    torchvision and timm, with which published accuracies were measured.

    Args:
        file: a path, or an open file.
        name: under which errors speak of it.
        transform: from a Pillow image (RGB) to a tensor (C, H, W); what it gives as uint8 is divided by 255.

    Returns:
        Float32 in [0, 1] if the transform gives uint8, else what it gives.

    Raises:
        ValueError: if it cannot be read, or not be treated; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            out = transform(as_rgb(picture))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {name}: {error}") from error  # all are what damage makes Pillow raise
    return out.to(torch.float32).div_(255.0) if out.dtype == torch.uint8 else out


def as_rgb(picture: Any) -> Any:
    """Convert a Pillow image of any kind to 8-bit RGB.

    Grey becomes three equal channels, transparency is left out, CMYK is converted without a colour profile: all that is
    Pillow's `convert("RGB")`. Of 16-bit grey that would make white of everything above 255; here 65535 is white.

    Raises:
        ValueError: for integers of 32 bits and floats, of which nobody knows what is white.
    """
    import numpy as np
    from PIL import Image

    of_16_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    if of_16_bits:
        grey = (np.asarray(picture).astype(np.int64) + 128) // 257  # to the nearest of 255 parts of 65535
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        kind = "integers of 32 bits" if picture.mode == "I" else "floats"
        raise ValueError(f"its pixels are {kind}, and what is white is not known: convert it to 8 or 16 bits")
    return picture.convert("RGB")
