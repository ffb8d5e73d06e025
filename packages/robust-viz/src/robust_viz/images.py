"""Image files as tensors."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def load_image(path: str | os.PathLike[str], size: tuple[int, int], channels: int = 3) -> Tensor:
    """Read an image file as a model sees it: turned upright, its short side resized, its middle cut out.

    Args:
        path: any format that Pillow reads; transparency lies on white.
        size: height and width in pixels.
        channels: 3, or 1 for grey.

    Returns:
        (channels, H, W), float32 in [0, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, or `channels` is neither 1 nor 3.
    """
    file = Path(path)
    if channels not in (1, 3):
        raise ValueError(f"image files have 3 channels, or 1 when grey; the model takes {channels}")
    if not file.is_file():
        raise FileNotFoundError(f"no image at {file}")
    try:
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("L" if channels == 1 else "RGB")
    height, width = size
    fitted = ImageOps.fit(flat, (width, height), method=Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(fitted)).view(height, width, channels)
    return pixels.permute(2, 0, 1).float() / 255
