"""From the bytes of an image file to pixels, by three libraries that do not agree on them."""

import importlib.util
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """
    cv2 = _cv2()
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise ValueError("OpenCV cannot decode it")
    return np.ascontiguousarray(found[:, :, ::-1])


def ffmpeg(content: bytes) -> Pixels:
    """Decode by FFmpeg, through PyAV.

    Raises:
        ValueError: if it cannot.
    """
    import av

    try:
        with av.open(io.BytesIO(content)) as container:
            frame = next(container.decode(video=0))
            return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"FFmpeg cannot decode it: {error}") from error


DECODERS: Mapping[str, Callable[[bytes], Pixels]] = {"pil": pil, "opencv": opencv, "ffmpeg": ffmpeg}
"""The decoders of ImageNet-S (Tang et al., "RobustART", arXiv:2109.05211)."""

_PACKAGES = {"opencv": "cv2", "ffmpeg": "av"}
_PIL = {"nearest": "NEAREST", "box": "BOX", "bilinear": "BILINEAR", "hamming": "HAMMING", "cubic": "BICUBIC"}
_OPENCV = {"nearest": "NEAREST", "bilinear": "LINEAR", "area": "AREA", "cubic": "CUBIC", "lanczos": "LANCZOS4"}
RESIZERS = tuple(f"pil-{name}" for name in (*_PIL, "lanczos")) + tuple(f"opencv-{name}" for name in _OPENCV)
"""The eleven resizers of ImageNet-S. Pillow's widen their filters where they shrink, OpenCV's do not but for area."""

CELLS = tuple((decoder, resizer) for decoder in DECODERS for resizer in RESIZERS)
"""The 33 cells of the published score."""


def resized(pixels: Pixels, side: int, resizer: str) -> Pixels:
    """Resize both sides to `side` pixels, which does not keep the proportions, by one of `RESIZERS`."""
    library, _, name = resizer.partition("-")
    if library == "opencv":
        cv2 = _cv2()
        out = cv2.resize(pixels, (side, side), interpolation=getattr(cv2, f"INTER_{_OPENCV[name]}"))
        return np.asarray(out, dtype=np.uint8)
    from PIL import Image

    how = Image.Resampling[_PIL.get(name, "LANCZOS")]
    return np.array(Image.fromarray(pixels).resize((side, side), how))


def missing() -> tuple[str, ...]:
    """Packages without which some cells cannot be computed."""
    return tuple(package for package in _PACKAGES.values() if importlib.util.find_spec(package) is None)


def available_cells() -> tuple[tuple[str, str], ...]:
    """Those of `CELLS` whose packages are installed."""
    lacking = {library for library, package in _PACKAGES.items() if package in missing()}
    return tuple(cell for cell in CELLS if not lacking & {cell[0], cell[1].partition("-")[0]})


def _cv2() -> Any:
    import cv2

    return cv2
