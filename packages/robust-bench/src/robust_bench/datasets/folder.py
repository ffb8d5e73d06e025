"""Folders of image files."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import ENDINGS, is_picture, read_picture
from robust_bench.fingerprint import without_addresses
from robust_bench.preprocess import Preprocess


def class_folders(path: str | Path) -> tuple[str, ...]:
    """Name the class folders of an image folder, in the order of their labels: numbers inside names count as numbers.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no class folders.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder {root}: expected a folder that holds <class>/<image>")
    names = [entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name)]
    if not names:
        raise ValueError(f"{root} holds no class folders: expected <class>/<image> below it")
    return in_natural_order(names)


class Folder(Dataset[tuple[Tensor, int]]):
    """Images in a folder `<class>/<image>`; float images in [0, 1] and the labels of their classes come out.

    Images are ordered by their paths, as timm's folder reader orders them; a class map changes labels, not the order.
    Files that are not images by their names, and hidden ones, are not looked at.

    Args:
        path: the folder.
        preprocess: what is done to the images; None means `Preprocess()`.
        transform: a function from a Pillow image to a tensor instead, for another treatment; uint8 is divided by 255.
        class_map: the label of every class folder; None numbers them in the order of their names.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there are no class folders, one is empty or not in the class map, or an image lies elsewhere; and
            for an unreadable image when it is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        preprocess: Treatment | None = None,
        transform: Callable[[Any], Tensor] | None = None,
        class_map: ClassMap | None = None,
    ) -> None:
        if preprocess is not None and transform is not None:
            raise ValueError("give preprocess or transform, not both")
        self.path = Path(path)
        self.preprocess = None if transform is not None else (preprocess or Preprocess())
        self.transform = (preprocess or Preprocess()).transform() if transform is None else transform
        self.classes = class_folders(path)
        self.labels = {
            name: position if class_map is None else class_map.label(name, of=str(self.path / name))
            for position, name in enumerate(self.classes)
        }
        self.num_classes = len(self.classes) if class_map is None else class_map.num_classes
        self._names = _images(self.path)
        filled = {_class_of(name) for name in self._names}
        if not filled:
            raise ValueError(f"no images below {path}: expected <class>/<image>, with names in {', '.join(ENDINGS)}")
        if empty := [name for name in self.classes if name not in filled]:
            raise ValueError(
                f"no images in the class folder {self.path / empty[0]}"
                + (f" and {len(empty) - 1} others" if len(empty) > 1 else "")
                + (": the labels of the classes after it would move; " if class_map is None else ": ")
                + "fill it or remove it"
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names and sizes of all files, of their labels, and of what is done to the images."""
        found = hashlib.sha256(without_addresses(self.preprocess or self.transform).encode())
        found.update(f"{self.labels}".encode())
        for name in self._names:
            found.update(f"{name}\t{(self.path / name).stat().st_size}\n".encode())
        return found.hexdigest()

    def filename(self, index: int) -> str:
        """The path of an image, relative to the folder."""
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name = self._names[index]
        file = self.path / name
        return read_picture(file, name=str(file), transform=self.transform), self.labels[_class_of(name)]


def folder(
    path: str | Path,
    *,
    preprocess: Treatment | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    class_map: ClassMap | None = None,
) -> Folder:
    """Open a folder of images `<class>/<image>`; see `Folder`."""
    return Folder(path, preprocess=preprocess, transform=transform, class_map=class_map)


def in_natural_order(names: list[str]) -> tuple[str, ...]:
    """Sort names as timm does, numbers in them by their value; names that differ only in case always fall alike.

    Examples:
        >>> in_natural_order(["10", "b2", "2", "B10"])
        ('2', '10', 'b2', 'B10')
    """
    from timm.utils.misc import natural_key

    return tuple(sorted(sorted(names), key=natural_key))


def _is_hidden(name: str) -> bool:
    """Whether a folder is hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def _class_of(name: str) -> str:
    return name.partition("/")[0]


def _images(root: Path) -> tuple[str, ...]:
    """The paths of all images below a folder, relative to it, with slashes.

    Raises:
        OSError: if a folder in it cannot be read.
        ValueError: if an image lies anywhere but in a class folder.
    """
    found = []
    for place, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        inside = Path(place).relative_to(root)
        images = [f"{inside.as_posix()}/{name}" for name in files if is_picture(name)]
        if images and len(inside.parts) != 1:
            raise ValueError(
                f"images outside of class folders below {root}, e.g. {images[0]}: expected <class>/<image>, one level "
                "of folders"
            )
        found += images
    return in_natural_order(found)


def _refuse(error: OSError) -> None:
    raise error
