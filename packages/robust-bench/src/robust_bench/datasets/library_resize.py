"""Resizing by Pillow and OpenCV themselves, or by torch in their manner."""

from typing import Literal

import numpy as np
import torch

from robust_bench.datasets.decoders import Pixels, library, missing, version
from robust_bench.datasets.resizers import RESIZERS, resize

By = Literal["library", "torch"]
"""Who resizes: the library in the resizer's name, or `robust_bench.datasets.resizers.resize`."""

_PIL = {"nearest": "NEAREST", "box": "BOX", "bilinear": "BILINEAR", "hamming": "HAMMING", "cubic": "BICUBIC"}
_OPENCV = {"nearest": "NEAREST", "bilinear": "LINEAR", "area": "AREA", "cubic": "CUBIC", "lanczos": "LANCZOS4"}


def resized(pixels: Pixels, size: tuple[int, int], resizer: str, by: By = "library") -> Pixels:
    """Resize to a height and a width, in pixels, by one of `RESIZERS`.

    Pillow is asked for the rows of pixels and then for the columns, as all versions up to 12 do it of their own accord.
    Version 13 does the columns first where that is less work, which moves single levels, and with them published
    scores. So the bytes are those of `resize`, whatever version is installed; those of `opencv-*` are OpenCV's own.
    """
    owner, _, name = resizer.partition("-")
    height, width = size
    if by == "torch":
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        return resize(images, size, resizer)[0].permute(1, 2, 0).contiguous().numpy()
    if owner == "opencv":
        cv2 = library("cv2")
        how = getattr(cv2, f"INTER_{_OPENCV[name]}")
        return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=how), dtype=np.uint8)
    from PIL import Image

    filter_ = Image.Resampling[_PIL.get(name, "LANCZOS")]
    narrow = Image.fromarray(pixels).resize((width, len(pixels)), filter_)
    return np.array(narrow.resize((width, height), filter_))


def resizing_by(resizer: str) -> By:
    """The library of a resizer where it can be imported, else torch."""
    return "library" if resizer.startswith("pil-") or "cv2" not in missing() else "torch"


def resizing_name(resizer: str, by: By) -> str:
    """Name who resizes, for results: "Pillow", "OpenCV" or "torch"."""
    return "torch" if by == "torch" else {"pil": "Pillow", "opencv": "OpenCV"}[resizer.partition("-")[0]]


def resizing_version(resizer: str, by: By) -> str | None:
    """Name the library that resizes, with its version; None where torch does, whose version all results have.

    Raises:
        ImportError: if it is not installed, or cannot be imported.
    """
    return None if by == "torch" else version(resizer.partition("-")[0])


def check_resizing(resizer: str, by: str) -> None:
    """Refuse an unknown resizer, or an unknown way to compute it.

    Raises:
        ValueError: for either; the message lists what there is.
    """
    if resizer not in RESIZERS:
        raise ValueError(f"unknown resizer {resizer!r}: choose from {', '.join(RESIZERS)}")
    if by not in ("library", "torch"):
        raise ValueError(f"resizing must be by 'library' or by 'torch', got {by!r}")
