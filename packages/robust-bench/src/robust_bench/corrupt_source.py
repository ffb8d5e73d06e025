"""The clean images of a corrupted copy, numbered as the benchmarks that corrupt images in memory number them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from torch.utils.data import Dataset

from robust_bench.datasets import Folder, class_folders
from robust_bench.datasets.cifar import FOLDERS, SIDE, cifar
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.preprocess import AsStored, Preprocess


@dataclass(frozen=True, kw_only=True)
class Source:
    """Clean images.

    Args:
        name: of the data set: CIFAR-10, CIFAR-100 or folder.
        data: the images, float in [0, 1], with their labels.
        fingerprint: sha256 of the names, sizes and labels of the files, not of their contents, or of the labels and a
            hundred of the images of CIFAR's own files; and of what is done to the images.
        names: of the files, "<class>/<image>"; none where the images lie in one file.
        labels: of the images.
        classes: how many images each class has.
    """

    name: str
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
        ValueError: if files are damaged, both CIFAR-10 and CIFAR-100 lie there, there are no class folders, one is
            empty, an image lies elsewhere, or CIFAR's own images were to be resized.
    """
    classes = _cifar_in(path)
    if classes is None:
        folder = Folder(path, preprocess=treatment)
        return _of_files(folder, folder.labels)
    if treatment != AsStored(stored=SIDE):
        raise ValueError("CIFAR's own files have their final size: leave --preprocessing crop and --size out")
    arrays = cifar(path, classes, preprocess=AsStored(stored=SIDE))
    counts = sorted(Counter(arrays.labels).items())
    return Source(
        name=f"CIFAR-{classes}",
        data=arrays,
        fingerprint=arrays.fingerprint,
        names=(),
        labels=arrays.labels,
        classes={str(label): count for label, count in counts},
    )


def _cifar_in(path: Path) -> Literal[10, 100] | None:
    """Tell which CIFAR a folder is or holds, by the number of classes.

    Raises:
        ValueError: if it holds both.
    """
    both: tuple[Literal[10, 100], ...] = (10, 100)
    for classes in both:
        if path.name == FOLDERS[classes]:
            return classes
    match [classes for classes in both if (path / FOLDERS[classes]).is_dir()]:
        case []:
            return None
        case [classes]:
            return classes
    raise ValueError(f"{path} holds both {FOLDERS[10]} and {FOLDERS[100]}: name the folder itself, one of the two")


def _of_files(data: LabelledFolder | Folder, labels: Mapping[str, int]) -> Source:
    names = [data.filename(id_) for id_ in range(len(data))]
    classes = [PurePosixPath(name).parent.name for name in names]
    counts = Counter(classes)
    return Source(
        name="folder",
        data=data,
        fingerprint=data.fingerprint,
        names=names,
        labels=[labels[name] for name in classes],
        classes={name: counts[name] for name in labels},
    )
