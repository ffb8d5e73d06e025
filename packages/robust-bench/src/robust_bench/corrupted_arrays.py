"""The files of a corrupted data set as CIFAR-10-C has them: an array per corruption, and the labels."""

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robust_bench.corruption_cells import Cell
from robust_bench.corruptions.presets import SEVERITIES
from robust_bench.datasets.arrays import mapped
from robust_bench.files import remove_abandoned, write_durably

LABELS = "labels.npy"
_PIECES = "pieces"


@dataclass(frozen=True, kw_only=True)
class CorruptedArrays:
    """Files `<corruption>.npy`, uint8 (5 N, side, side, 3), severities one after another, and `labels.npy` (5 N,).

    A file is put together from pieces, each of some images of a cell, when all are there; so what has its name is
    complete.

    Args:
        folder: of the files.
        kept: folder of the pieces, which are removed one corruption after another, and of what is being written.
        labels: of the N images, by their ids.
        corruptions: what is to be there.
        side: of the images, in pixels.
        size: images of a piece; the last may have fewer.
    """

    folder: Path
    kept: Path
    labels: Sequence[int]
    corruptions: tuple[str, ...]
    side: int
    size: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every corruption at every severity."""
        return tuple(Cell(name, severity) for name in self.corruptions for severity in SEVERITIES)

    @property
    def spare(self) -> int:
        """The bytes that are needed for a while: the pieces of a corruption stay until its file is there."""
        return len(SEVERITIES) * len(self.labels) * self._image

    @property
    def unfinished(self) -> Path:
        """Folder of what is being written."""
        return self.kept / "unfinished"

    def present(self) -> npt.NDArray[np.bool_]:
        """Tell what is there, in files or pieces, (cells, images)."""
        out = np.zeros((len(self.cells), len(self.labels)), dtype=np.bool_)
        for row, cell in enumerate(self.cells):
            if self._file(cell.corruption).is_file():
                out[row] = True
                continue
            for start in self._starts():
                if self._piece(cell, start).is_file():
                    out[row, start : start + self.size] = True
        return out

    def write(self, cell: Cell, ids: Sequence[int], images: Tensor, put: Callable[[Path, bytes], object]) -> None:
        """Give the piece of a cell that begins with the first of these ids to `put`, which writes a file.

        Raises:
            ValueError: if these are not all images of a piece.
        """
        start = ids[0]
        if start not in self._starts() or len(ids) != self._length(start):
            raise ValueError(f"a piece of {self.size} images cannot hold {len(ids)} from image {start} on")
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))
        put(self._piece(cell, start), buffer.getvalue())

    def bytes_per_image(self, _images: Tensor) -> float:
        """Give the room on the disk that an image takes."""
        return float(self._image)

    def finish(self) -> None:
        """Put the pieces together, and remove what killed processes have left; another may be doing the same.

        Raises:
            ValueError: if a piece is damaged; it is named.
        """
        labels = np.tile(np.asarray(self.labels), len(SEVERITIES))
        small = labels.astype(np.uint8)  # as published
        content = _npy(small if np.array_equal(small, labels) else labels)
        write_durably(self.folder / LABELS, content, unfinished=self.unfinished)
        for name in self.corruptions:
            file = self._file(name)
            if not file.is_file():
                try:
                    write_durably(file, self._content(name), unfinished=self.unfinished)
                except FileNotFoundError:
                    if not file.is_file():  # else another process has finished it, and removed the pieces
                        raise
            shutil.rmtree(self.kept / _PIECES / name, ignore_errors=True)
        remove_abandoned(self.unfinished)

    def _content(self, name: str) -> Iterator[bytes]:
        header = io.BytesIO()
        shape = (len(SEVERITIES) * len(self.labels), self.side, self.side, 3)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        yield header.getvalue()
        for severity in SEVERITIES:
            for start in self._starts():
                file = self._piece(Cell(name, severity), start)
                piece = mapped(file)
                if piece.dtype != np.uint8 or piece.shape != (self._length(start), *shape[1:]):
                    raise ValueError(f"{file} is damaged: remove it, and give the same command again")
                yield piece.tobytes()

    def _starts(self) -> range:
        return range(0, len(self.labels), self.size)

    def _length(self, start: int) -> int:
        return min(self.size, len(self.labels) - start)

    @property
    def _image(self) -> int:
        return 3 * self.side**2

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _piece(self, cell: Cell, start: int) -> Path:
        return self.kept / _PIECES / cell.corruption / str(cell.severity) / f"{start:06d}.npy"


def _npy(array: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
