"""Images and sequences of images in NumPy files, as CIFAR-10-C and CIFAR-10-P have them."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.preprocess import AsStored

_LOOKED_AT = 100  # rows in a fingerprint


class Arrays(Dataset[tuple[Tensor, int]]):
    """Rows of an array of 8-bit images, or of sequences of them, as float tensors in [0, 1] with labels.

    A file is mapped into memory, so that only the rows that are taken are read.

    Args:
        images: a `.npy` file, or an array, uint8 (N, side, side, 3) or (N, T, side, side, 3).
        labels: one per row of `rows`.
        rows: which rows; None means all.
        preprocess: what is done to the images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or the array has another shape or type.
    """

    def __init__(
        self,
        images: Path | npt.NDArray[np.uint8],
        labels: Sequence[int],
        *,
        rows: range | None = None,
        preprocess: AsStored,
    ) -> None:
        self.images = images
        self.preprocess = preprocess
        array = mapped(images) if isinstance(images, Path) else images
        stored = preprocess.stored
        if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.shape[-3:] != (stored, stored, 3):
            raise ValueError(
                f"{self._called} must be uint8 (N, {stored}, {stored}, 3) or, of sequences, "
                f"(N, T, {stored}, {stored}, 3), got {array.dtype} {array.shape}"
            )
        self.rows = range(len(array)) if rows is None else rows
        self.labels = [int(label) for label in labels]
        if not self.rows or len(self.labels) != len(self.rows) or self.rows[-1] >= len(array):
            raise ValueError(
                f"{self._called} has {len(array)} rows, of which {len(self.rows)} are wanted, with {len(self.labels)} "
                "labels: is the file complete?"
            )

    @functools.cached_property
    def _array(self) -> npt.NDArray[np.uint8]:
        return mapped(self.images) if isinstance(self.images, Path) else self.images

    @property
    def _called(self) -> str:
        return str(self.images) if isinstance(self.images, Path) else "the array"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the mapped file, which every process maps for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 of the file's name, shape, labels and 100 of the rows, and of what is done to the images."""
        name = self.images.name if isinstance(self.images, Path) else ""
        found = hashlib.sha256(f"{name}{self._array.shape}{self.rows}{self.preprocess}{self.labels}".encode())
        for position in sorted({len(self.rows) * part // _LOOKED_AT for part in range(_LOOKED_AT)}):
            found.update(self._array[self.rows[position]].tobytes())
        return found.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        row = self._array[self.rows[index]]
        frames = row if row.ndim == 4 else row[None]
        out = torch.stack([self.preprocess(Image.fromarray(frame)) for frame in frames])
        return (out if row.ndim == 4 else out[0]).to(torch.float32).div_(255.0), self.labels[index]


def mapped(file: Path) -> Any:
    """Map a `.npy` file into memory, without reading it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is cut off, or no array.
    """
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no array {file}") from error
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read the array {file} ({error}): was its download or copy cut off?") from error
