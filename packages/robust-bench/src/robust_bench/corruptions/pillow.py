"""Pictures of Pillow from tensors, and back."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]


def picture(planes: Levels) -> Image.Image:
    """Make a picture of one image (C, H, W), C 1 or 3."""
    _, height, width = planes.shape
    bands = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]
    return bands[0] if len(bands) == 1 else Image.merge("RGB", bands)


def write_planes(image: Image.Image, planes: Levels) -> None:
    """Write a picture into one image (C, H, W)."""
    for plane, band in zip(planes, image.split(), strict=True):
        plane[:] = band
