"""Images read from files, and files written whole or not at all."""

import os
from pathlib import Path
from typing import Any


def read_image(path: Path) -> Any:
    """The image at `path` as an RGB image of PIL, read as torchvision's data sets read theirs."""
    from torchvision.datasets.folder import default_loader

    return default_loader(str(path))


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that nobody ever sees a part of it: a file that exists is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
