"""Images in tar files, as a data set with numbered items."""

import functools
import hashlib
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import read_picture
from robust_bench.datasets.tar_file import Member, TarReader
from robust_bench.fingerprint import without_addresses


@dataclass(frozen=True)
class Labelled:
    """An image in a tar file: which file, where in it, and its label."""

    shard: int
    member: Member
    label: int


class TarImages(Dataset[tuple[Tensor, int]]):
    """Images in tar files as float tensors in [0, 1] with labels, of which any is read by itself.

    Of every image, its name, its place and its label are kept in memory.

    Args:
        shards: the tar files.
        images: what is in them, in order.
        num_classes: how many classes the labels are of; None means the largest label and one.
        preprocess: what is done to the images.

    Raises:
        ValueError: if there are no images; and for an unreadable one when it is taken. The message names the tar file
            and the member.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        images: Iterable[Labelled],
        *,
        num_classes: int | None = None,
        preprocess: Treatment,
    ) -> None:
        self.shards = tuple(shards)
        common = Path(os.path.commonpath([shard.parent for shard in shards]))
        self._shards = [shard.relative_to(common).as_posix() for shard in shards]
        self.preprocess = preprocess
        self.transform = preprocess.transform()
        self._shard, self._offset, self._size, self._label = (array("q") for _ in range(4))
        self._names: list[str] = []
        for image in images:
            self._names.append(image.member.name)
            self._shard.append(image.shard)
            self._offset.append(image.member.offset)
            self._size.append(image.member.size)
            self._label.append(image.label)
        if not self._names:
            raise ValueError(f"no images in {self.shards[0]}" + (" and the others" if len(self.shards) > 1 else ""))
        self.num_classes = max(self._label) + 1 if num_classes is None else num_classes
        self._reader = TarReader()

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of names and sizes of tar files, of names and labels of images, and of what is done to them."""
        found = hashlib.sha256(without_addresses(self.preprocess).encode())
        for shard, name in zip(self.shards, self._shards, strict=True):
            found.update(f"{name}\t{shard.stat().st_size}\n".encode())
        for name in self._names:
            found.update(f"{name}\n".encode())
        found.update(self._label.tobytes())
        return found.hexdigest()

    def filename(self, index: int) -> str:
        """Name an image by its tar file and by its name in there, as "val-000.tar/n01440764/1.jpg"."""
        return f"{self._shards[self._shard[index]]}/{self._names[index]}"

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        shard = self.shards[self._shard[index]]
        content = self._reader.read(shard, self._offset[index], self._size[index])
        image = read_picture(BytesIO(content), name=f"{shard}/{self._names[index]}", transform=self.transform)
        return image, self._label[index]
