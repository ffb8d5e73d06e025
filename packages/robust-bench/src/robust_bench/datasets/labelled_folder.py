"""Images in folders whose labels are known beforehand."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.listing import Listing
from robust_bench.datasets.picture import read_picture
from robust_bench.fingerprint import without_addresses

IMAGES = (".jpeg", ".jpg", ".png", ".webp")
"""Endings of image files."""


class Treatment(Protocol):
    """From an image file to what the model takes: `Preprocess`, `AsStored`, or a dataclass of the same kind."""

    @property
    def settings(self) -> dict[str, Any]:
        """Give the values, and the steps in words."""
        ...

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image (RGB) to a uint8 tensor (C, H, W)."""
        ...


class Read(Protocol):
    """A function that reads a file."""

    def __call__(self, file: Path, *, name: str, transform: Callable[[Any], Tensor]) -> Tensor:
        """Give a float image (C, H, W) in [0, 1]."""
        ...


class LabelledFolder(Dataset[tuple[Tensor, int]]):
    """Images `<folder>/<image>` as float tensors in [0, 1] with the labels that were given to their folders.

    `robust_bench.datasets.Folder` numbers its folders itself; here the numbers come from outside, so that a set of some
    of ImageNet's classes, or with folders in another order, has right labels.

    Args:
        path: what the class folders lie in.
        labels: of every folder that is read.
        preprocess: what is done to the images.
        read: from a file, its name for errors, and the transform of `preprocess` to a float tensor.

    Raises:
        FileNotFoundError: when it is first used, if a folder is missing.
        ValueError: when it is first used, if a folder has no images; and for an unreadable image, or one of the wrong
            size, when it is taken. The message names the file.
    """

    def __init__(
        self, path: str | Path, labels: Mapping[str, int], *, preprocess: Treatment, read: Read = read_picture
    ) -> None:
        self.listing = Listing(path=Path(path), labels=labels, suffixes=IMAGES)
        self.preprocess = preprocess
        self.read = read
        self._transform = preprocess.transform()

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names, sizes and labels of all files, and of what is done to the images."""
        return fingerprint_of(self.listing, self.preprocess)

    def __len__(self) -> int:
        return len(self.listing)

    def filename(self, index: int) -> str:
        """Name an image from the folder on."""
        return self.listing.name(index)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.listing.file(index)
        return self.read(file, name=str(file), transform=self._transform), self.listing.label(index)


def fingerprint_of(listing: Listing, treatment: Treatment) -> str:
    """Give the sha256 of the names, sizes and labels of files, and of what is done to them."""
    done = without_addresses((treatment, treatment.settings))  # settings may have the versions of libraries as well
    text = f"{done}\n{sorted(listing.labels.items())}\n{listing.digest}"
    return hashlib.sha256(text.encode()).hexdigest()
