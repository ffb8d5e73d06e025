"""Folders of image files."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.fingerprint import without_addresses
from robust_bench.preprocess import Preprocess


def class_folders(path: str | Path) -> tuple[str, ...]:
    """Name the class folders of an image folder, in the order of their labels: numbers inside names count as numbers.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no class folders.
    """
    from timm.utils.misc import natural_key

    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder {root}: expected a folder that holds <class>/<image>")
    names = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise ValueError(f"{root} holds no class folders: expected <class>/<image> below it")
    return tuple(sorted(sorted(names), key=natural_key))


class Folder(Dataset[tuple[Tensor, int]]):
    """Images in a folder `<class>/<image>`, read by timm; float images in [0, 1] and the class's position come out.

    Args:
        path: the folder.
        preprocess: resize and crop.
        transform: a function from a Pillow image to a tensor instead, for another treatment; uint8 is divided by 255.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there are no class folders, or one is empty; and for an unreadable image when it is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        preprocess: Preprocess | None = None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        from timm.data.readers.reader_factory import create_reader

        if preprocess is not None and transform is not None:
            raise ValueError("give preprocess or transform, not both")
        self.path = Path(path)
        self.preprocess = None if transform is not None else (preprocess or Preprocess())
        self.transform = (preprocess or Preprocess()).transform() if transform is None else transform
        self.classes = class_folders(path)
        try:
            self._reader = create_reader("", root=str(path))
        except RuntimeError as error:
            raise ValueError(f"no images below {path}: expected <class>/<image> ({error})") from error
        found = set(self._reader.class_to_idx)
        if empty := [name for name in self.classes if name not in found]:
            raise ValueError(
                f"no images in the class folder {self.path / empty[0]}"
                + (f" and {len(empty) - 1} others" if len(empty) > 1 else "")
                + ": the labels of the classes after it would move; fill it or remove it"
            )
        if extra := sorted(found - set(self.classes)):
            raise ValueError(
                f"images outside of class folders below {path}, e.g. in {extra[0] or '.'!r}: expected <class>/<image>"
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names and sizes of all files, and of what is done to the images."""
        found = hashlib.sha256(without_addresses(self.preprocess or self.transform).encode())
        for index in range(len(self)):
            name = self._reader.filename(index)
            found.update(f"{name}\t{(self.path / name).stat().st_size}\n".encode())
        return found.hexdigest()

    def filename(self, index: int) -> str:
        """The path of an image, relative to the folder."""
        return Path(str(self._reader.filename(index))).as_posix()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        name = self._reader.filename(index, absolute=True)
        try:
            file, label = self._reader[index]
            with file, Image.open(file) as image:
                picture = image.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for damaged files
            raise ValueError(f"cannot read the image {name}: {error}") from error
        out = self.transform(picture)
        return (out.to(torch.float32).div_(255.0) if out.dtype == torch.uint8 else out), label


def folder(
    path: str | Path, *, preprocess: Preprocess | None = None, transform: Callable[[Any], Tensor] | None = None
) -> Folder:
    """Open a folder of images `<class>/<image>`; see `Folder`."""
    return Folder(path, preprocess=preprocess, transform=transform)
