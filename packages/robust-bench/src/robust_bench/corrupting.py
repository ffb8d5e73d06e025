"""Making a corrupted copy, shard by shard: read, corrupt, write."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.corruption_cells import Cell
from robust_bench.corruptions import SizeWarning, corrupt
from robust_bench.files import write_durably
from robust_bench.grey_levels import to_levels
from robust_bench.processes import in_processes
from robust_bench.progress import bar
from robust_bench.shards import Shards

_WRITERS = 8  # threads; on the CPU they mostly wait for the disk, beside a GPU they also encode
_LOOKED_AT = 4  # images by which the size of all files is judged


class CorruptedFiles(Protocol):
    """Where the images go: `CorruptedTree` or `CorruptedArrays`."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What is to be there."""
        ...

    @property
    def spare(self) -> int:
        """Bytes that are needed only for a while."""
        ...

    @property
    def unfinished(self) -> Path:
        """Folder of what is being written, on the same disk."""
        ...

    def present(self) -> npt.NDArray[np.bool_]:
        """Tell what is there, (cells, images)."""
        ...

    def write(self, cell: Cell, ids: Sequence[int], images: Tensor, put: Callable[[Path, bytes], object]) -> None:
        """Encode images of a cell, uint8 (N, 3, H, W), and give the files to `put`."""
        ...

    def bytes_per_image(self, images: Tensor) -> float:
        """Give the room on the disk that images like these take on average."""
        ...

    def finish(self) -> None:
        """Do what remains to be done when all is there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Corrupting:
    """Makes the images of a corrupted copy.

    An image's id is its position in the data, so its random numbers do not depend on who makes it, with which others
    and when.

    Args:
        data: the clean images, uint8 divided by 255, with a second item that is not looked at.
        preset: see `robust_bench.corruptions.corrupt`.
        variant: see there.
        seed: see there.
        frost: see there.
        files: where the images go.
        absent: what is missing there, (cells, images).
        shards: which images are made together.
    """

    data: Dataset[Any]
    preset: str
    variant: str
    seed: int
    frost: str
    files: CorruptedFiles
    absent: npt.NDArray[np.bool_]
    shards: Shards

    def needed(self) -> float:
        """Estimate the bytes of what is missing, from a few of the images."""
        count = self.absent.shape[1]
        ids = sorted({count * part // _LOOKED_AT for part in range(_LOOKED_AT)})
        with one_thread():
            levels = self.levels(ids)
            return self.files.spare + sum(
                int(row.sum()) * self.files.bytes_per_image(self.corrupted(levels, cell, ids))
                for cell, row in zip(self.files.cells, self.absent, strict=True)
                if row.any()
            )

    def work(self, mine: Sequence[int], device: torch.device, workers: int, progress: bool | None) -> None:
        """Make some shards: in worker processes, or, on a GPU, here, with workers that read the images.

        Raises:
            ValueError: if an image cannot be read; it is named, and what was finished before stays.
            OSError: if a file cannot be written, or a worker process died.
        """
        on_cpu = device.type == "cpu"
        count = sum(len(self.shards.ids(shard)) for shard in mine)
        begun = in_processes(self.make if on_cpu else self.read, mine, workers)  # before the thread of the bar is
        with contextlib.closing(begun) as done, bar("corrupted", count, progress) as shown:
            for shard, levels in done:
                if not on_cpu:
                    self.make_on(device, shard, levels)
                shown.move(len(self.shards.ids(shard)))

    def make(self, shard: int) -> None:
        """Make a shard with one thread; others wait for the disk."""
        ids = self.shards.ids(shard)
        with one_thread(), _writing() as later:
            levels = self.levels(ids)
            for cell, rows in self._missing(ids):
                some = [ids[row] for row in rows]
                images = self.corrupted(levels[rows], cell, some)
                self.files.write(cell, some, images, lambda path, content: later(self._put, path, content))

    def read(self, shard: int) -> npt.NDArray[np.uint8]:
        """Read the clean images of a shard, uint8 (N, 3, H, W)."""
        return self.levels(self.shards.ids(shard)).numpy()

    def make_on(self, device: torch.device, shard: int, levels: npt.NDArray[np.uint8]) -> None:
        """Make a shard of clean images on a device, and encode and write them in threads."""
        ids = self.shards.ids(shard)
        there = torch.from_numpy(levels).to(device)
        with _writing() as later:
            for cell, rows in self._missing(ids):
                some = [ids[row] for row in rows]
                images = self.corrupted(there[rows], cell, some).cpu()
                later(self.files.write, cell, some, images, self._put)

    def levels(self, ids: Sequence[int]) -> Tensor:
        """Read clean images, uint8 (N, 3, H, W)."""
        return to_levels(torch.stack([self.data[id_][0] for id_ in ids]))

    def corrupted(self, levels: Tensor, cell: Cell, ids: Sequence[int]) -> Tensor:
        """Corrupt clean images, uint8 (N, 3, H, W)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SizeWarning)  # who began this has been told
            return corrupt(
                levels,
                cell.corruption,
                cell.severity,
                self.preset,
                self.variant,
                seed=self.seed,
                ids=torch.tensor(ids),
                frost=self.frost,
            )

    def _put(self, path: Path, content: bytes) -> None:
        write_durably(path, content, unfinished=self.files.unfinished)

    def _missing(self, ids: range) -> Iterator[tuple[Cell, list[int]]]:
        """The cells in which some of these images are missing, with the positions of these among them."""
        for cell, row in zip(self.files.cells, self.absent[:, ids.start : ids.stop], strict=True):
            if row.any():
                yield cell, np.flatnonzero(row).tolist()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, as worker processes do: sums of floats may depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _writing() -> Iterator[Callable[..., None]]:
    """Give a function that calls another in a thread; at the end of the block all have succeeded."""
    pending: list[Future[object]] = []
    with ThreadPoolExecutor(_WRITERS) as threads:
        yield lambda function, *arguments: pending.append(threads.submit(function, *arguments))
    for each in pending:
        each.result()
