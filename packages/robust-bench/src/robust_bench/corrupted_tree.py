"""The files of a corrupted data set as ImageNet-C has them: <corruption>/<severity>/<class>/<image>."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robust_bench.corruption_cells import Cell
from robust_bench.datasets.picture import picture_of
from robust_bench.files import remove_abandoned

Form = Literal["jpeg", "png"]
ENDINGS = {"jpeg": "JPEG", "png": "png"}
JPEG: Mapping[str, Any] = MappingProxyType({"quality": 85, "subsampling": "4:2:0"})
"""How the published files were encoded."""

_BLOCK = 4096  # bytes; what most file systems give a file is a multiple of it


def encoded_image(levels: Tensor, form: Form) -> bytes:
    """Give the content of the file of an image, uint8 (3, H, W)."""
    image = picture_of(levels)
    buffer = io.BytesIO()
    if form == "png":
        image.save(buffer, "PNG", compress_level=1)  # up to four times as fast, and a fifth larger
    else:
        image.save(buffer, "JPEG", **JPEG)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class CorruptedTree:
    """The files of a corrupted data set: an image in every cell, each written whole or not at all.

    Args:
        folder: that the corruptions lie in.
        unfinished: folder of what is being written.
        names: of the images below a severity, as "n01440764/ILSVRC2012_val_00000293.JPEG", by their ids.
        cells: what is to be there.
        form: of the files.
    """

    folder: Path
    unfinished: Path
    names: Sequence[str]
    cells: tuple[Cell, ...]
    form: Form

    spare = 0  # bytes that are needed only for a while

    def present(self) -> npt.NDArray[np.bool_]:
        """Tell what is there, (cells, images)."""
        ids = {name: id_ for id_, name in enumerate(self.names)}
        classes = dict.fromkeys(PurePosixPath(name).parent.as_posix() for name in self.names)
        out = np.zeros((len(self.cells), len(self.names)), dtype=np.bool_)
        for row, cell in enumerate(self.cells):
            found = (ids.get(name) for name in _files(self._base(cell), classes))
            out[row, [id_ for id_ in found if id_ is not None]] = True
        return out

    def write(self, cell: Cell, ids: Sequence[int], images: Tensor, put: Callable[[Path, bytes], object]) -> None:
        """Encode the images of a cell, uint8 (N, 3, H, W), and give them to `put`, which writes a file."""
        for id_, image in zip(ids, images, strict=True):
            put(self._base(cell) / self.names[id_], encoded_image(image, self.form))

    def bytes_per_image(self, images: Tensor) -> float:
        """Give the room on the disk that images like these, uint8 (N, 3, H, W), take on average."""
        sizes = (len(encoded_image(image, self.form)) for image in images)
        return sum(-(-size // _BLOCK) * _BLOCK for size in sizes) / len(images)

    def finish(self) -> None:
        """Remove what killed processes have left of files that they were writing."""
        remove_abandoned(self.unfinished)

    def _base(self, cell: Cell) -> Path:
        return self.folder / cell.corruption / str(cell.severity)


def _files(base: Path, classes: Iterable[str]) -> Iterator[str]:
    """Name the files that lie in class folders."""
    for name in classes:
        if (base / name).is_dir():
            with os.scandir(base / name) as entries:
                yield from (f"{name}/{entry.name}" for entry in entries)
