"""Images read from files, and files written whole or not at all."""

import io
import os
import uuid
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2.functional import to_pil_image


def read_image(path: Path) -> Any:
    """The image at `path` as an RGB image of PIL, read as torchvision's data sets read theirs."""
    return default_loader(str(path))


def encoded(image: Tensor, form: str) -> bytes:
    """The content of a file of `image` (3, H, W), uint8, as "PNG" or as "JPEG" of Pillow's default quality of 75."""
    content = io.BytesIO()
    to_pil_image(image.cpu()).save(content, format=form)
    return content.getvalue()


def files_below(folder: Path) -> list[Path]:
    """All files in `folder` and below, in the order of their paths; links to folders are followed, but not upwards."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [name for name in folders if not here.is_relative_to(Path(root, name).resolve())]
        found += [Path(root, name) for name in names]
    return sorted(found)


def check_outside(source: Path, target: Path) -> None:
    """Refuse a target in the source, whose files would become images of it."""
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise ValueError(f"the target must lie outside the source {source}, got {target}")


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that nobody ever sees a part of it: a file that exists is complete."""
    # A process number would not do: two machines that share a disk may have the same.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
