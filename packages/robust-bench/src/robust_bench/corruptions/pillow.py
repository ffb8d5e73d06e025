"""Tensors as pictures of Pillow, and back."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Levels = NDArray[np.uint8]

# Up to this many pixels it costs less to reorder a whole batch than to hand Pillow three channels of every image.
_FEW = 96 * 96


def through_pictures(levels: Tensor, change: Callable[[Image.Image], Image.Image], height: int, width: int) -> Tensor:
    """Change images as pictures of Pillow, one by one, on the CPU.

    Args:
        levels: uint8 (N, C, H, W), C 1 or 3.
        change: gives a picture of `height` and `width` in the same mode.
        height: of the result.
        width: of the result.

    Returns:
        uint8 (N, C, height, width) on the device of `levels`.
    """
    count, channels, *size = levels.shape
    planes = levels.cpu().contiguous().numpy()
    if channels == 3 and size[0] * size[1] <= _FEW:
        pixels = np.empty((count, height, width, 3), dtype=np.uint8)
        for image, result in zip(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), pixels, strict=True):
            result[:] = np.asarray(change(Image.fromarray(image)))
        out = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    else:
        out = np.empty((count, channels, height, width), dtype=np.uint8)
        for image, result in zip(planes, out, strict=True):
            _write(change(_picture(image)), result)
    return torch.from_numpy(out).to(levels.device)


def _picture(planes: Levels) -> Image.Image:
    _, height, width = planes.shape
    bands = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]
    return bands[0] if len(bands) == 1 else Image.merge("RGB", bands)


def _write(image: Image.Image, planes: Levels) -> None:
    for plane, band in zip(planes, image.getbands(), strict=True):
        plane[:] = np.frombuffer(image.tobytes("raw", band), dtype=np.uint8).reshape(plane.shape)
