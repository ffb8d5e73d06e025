"""From the bytes of an image file to pixels, by three libraries that do not agree on them."""

import functools
import importlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_bench.datasets.resizers import RESIZERS

Pixels = npt.NDArray[np.uint8]
"""RGB, (H, W, 3)."""


def pil(content: bytes) -> Pixels:
    """Decode by Pillow."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def opencv(content: bytes) -> Pixels:
    """Decode by OpenCV, without turning the image as its EXIF note says.

    Raises:
        ValueError: if it cannot.
        ImportError: if OpenCV is not installed, or cannot be imported.
    """
    cv2 = library("cv2")
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise ValueError("OpenCV cannot decode it")
    return np.ascontiguousarray(found[:, :, ::-1])


def ffmpeg(content: bytes) -> Pixels:
    """Decode by FFmpeg, through PyAV.

    Raises:
        ValueError: if it cannot.
        ImportError: if PyAV is not installed, or cannot be imported.
    """
    av = library("av")
    try:
        with av.open(io.BytesIO(content)) as container:
            frame = next(container.decode(video=0))
            return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"FFmpeg cannot decode it: {error}") from error


DECODERS: Mapping[str, Callable[[bytes], Pixels]] = {"pil": pil, "opencv": opencv, "ffmpeg": ffmpeg}
"""The decoders of ImageNet-S (Tang et al., "RobustART", arXiv:2109.05211)."""

_PACKAGES = {"opencv": "cv2", "ffmpeg": "av"}

_NAMES = {"pil": "Pillow", "opencv": "OpenCV", "ffmpeg": "PyAV"}

CELLS = tuple((decoder, resizer) for decoder in DECODERS for resizer in RESIZERS)
"""The 33 cells of the published score."""


def missing() -> dict[str, str]:
    """Packages without which some decoders are not there, with the reason: not installed, or what importing it said."""
    reasons = {package: _why_missing(package) for package in _PACKAGES.values()}
    return {package: reason for package, reason in reasons.items() if reason is not None}


def available_cells() -> tuple[tuple[str, str], ...]:
    """Those of `CELLS` whose decoder is there; every resizer is."""
    lacking = missing()
    return tuple(cell for cell in CELLS if _PACKAGES.get(cell[0]) not in lacking)


def library(package: str) -> Any:
    """Import "cv2" or "av".

    Raises:
        ModuleNotFoundError: if it is not installed; the message says how to.
        ImportError: if it is, but cannot be imported; the message says why.
    """
    if not _installed(package):
        raise ModuleNotFoundError(
            f"this decoder or resizer needs the package {package}, which is not installed: "
            "pip install 'robust-bench[system]'"
        )
    if (error := _error_of_import(package)) is not None:
        raise ImportError(
            f"this decoder or resizer needs the package {package}, which is installed but cannot be imported: {error}"
        )
    return importlib.import_module(package)


def version(owner: str) -> str:
    """Name and version of the library behind "pil", "opencv" or "ffmpeg", e.g. "Pillow 12.0.0".

    Raises:
        ImportError: if it is not installed, or cannot be imported.
    """
    module = library(_PACKAGES[owner]) if owner in _PACKAGES else importlib.import_module("PIL")
    return f"{_NAMES[owner]} {module.__version__}"


def _why_missing(package: str) -> str | None:
    return _error_of_import(package) if _installed(package) else "not installed"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.cache  # OpenCV says only the first time why it cannot be imported
def _error_of_import(package: str) -> str | None:
    """What a package that is installed lacks, such as a library of the system; None if nothing."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        return str(error)
    return None
