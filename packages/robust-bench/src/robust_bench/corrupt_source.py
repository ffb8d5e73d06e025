"""The clean images of a corrupted copy, numbered as the benchmarks that corrupt images in memory number them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch.utils.data import Dataset

from robust_bench.datasets import Folder, class_folders
from robust_bench.datasets.cifar import FOLDERS, cifar
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.preprocess import AsStored, Preprocess


@dataclass(frozen=True, kw_only=True)
class Source:
    """Clean images.

    Args:
        data: the images, float in [0, 1], with their labels.
        fingerprint: of the images, and of what is done to them.
        names: of the files, "<class>/<image>"; none where the images lie in one file.
        labels: of the images.
        classes: how many images each class has.
    """

    data: Dataset[Any]
    fingerprint: str
    names: Sequence[str]
    labels: Sequence[int]
    classes: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.labels)


def open_folders(path: Path, treatment: Preprocess | AsStored) -> Source:
    """Open a folder of images as the benchmarks of ImageNet do: classes sorted, and inside them the files.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there are no class folders, or one is empty.
    """
    labels = {name: place for place, name in enumerate(sorted(class_folders(path)))}
    data = LabelledFolder(path, labels, preprocess=treatment)
    return _of_files(data, labels)


def open_cifar(path: Path, treatment: Preprocess | AsStored) -> Source:
    """Open CIFAR's own files, where these are in the folder or are it, or a folder of images as `folder` does.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if files are damaged, there are no class folders, one is empty, an image lies elsewhere, or CIFAR's
            own images were to be resized.
    """
    for classes in (10, 100):
        if path.name == FOLDERS[classes] or (path / FOLDERS[classes]).is_dir():
            if not isinstance(treatment, AsStored):
                raise ValueError("CIFAR's own files have their final size: leave --preprocessing crop out")
            arrays = cifar(path, classes, preprocess=treatment)
            counts = sorted(Counter(arrays.labels).items())
            return Source(
                data=arrays,
                fingerprint=arrays.fingerprint,
                names=(),
                labels=arrays.labels,
                classes={str(label): count for label, count in counts},
            )
    folder = Folder(path, preprocess=treatment)
    return _of_files(folder, folder.labels)


def _of_files(data: LabelledFolder | Folder, labels: Mapping[str, int]) -> Source:
    names = [data.filename(id_) for id_ in range(len(data))]
    classes = [PurePosixPath(name).parent.name for name in names]
    counts = Counter(classes)
    return Source(
        data=data,
        fingerprint=data.fingerprint,
        names=names,
        labels=[labels[name] for name in classes],
        classes={name: counts[name] for name in labels},
    )
