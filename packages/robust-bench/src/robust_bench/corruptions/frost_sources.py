"""Where textures of frost come from: made ones, an installed package, a folder."""

import functools
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from robust_bench.corruptions.procedural_frost import NAME, procedural_frost

_PACKAGE = "imagecorruptions"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MOST = 5  # textures that are used: the published scripts leave out the last of their six files


@functools.lru_cache(maxsize=4)
def load(source: str | Path) -> tuple[Tensor, ...]:
    """Give at most five textures, uint8 (3, H, W) each; a source is read once.

    Args:
        source: "procedural" for made ones, "package" for those of an installed `imagecorruptions`, or a folder, of
            which the first five images by name are taken.

    Raises:
        ValueError: if there are none; the message says how to get some.
    """
    if source == "procedural":
        return procedural_frost()
    return tuple(_read(file) for file in _files(_package() if source == "package" else Path(source)))


def name_of_textures(source: str | Path) -> str:
    """Name a source for a result: "procedural-v1", the package with its version, or the fingerprint of a folder.

    Raises:
        ValueError: if there are no textures.
    """
    if source == "procedural":
        return NAME
    if source == "package":
        _package()
        return f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}"
    contents = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in _files(Path(source))))
    return f"folder sha256:{contents.hexdigest()[:16]}"


def _package() -> Path:
    """Find the textures of the installed package without importing it, which fails on current libraries."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(
            f"frost='package' reads the textures of the package {_PACKAGE}, which is not installed: pip install "
            f"--no-deps {_PACKAGE}, or give a folder of textures, or leave it out for made ones"
        )
    return Path(found.origin).parent / "frost"


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"frost must be 'procedural', 'package' or a folder of textures, and there is no {folder}")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"no textures of frost in {folder}: put images there ({', '.join(_SUFFIXES)})")
    return files[:_MOST]


def _read(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            picture = image.convert("RGB")
    except OSError as error:
        raise ValueError(f"cannot read the texture {file}: {error}") from error
    width, height = picture.size
    levels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(height, width, 3)
    return levels.permute(2, 0, 1).contiguous()
