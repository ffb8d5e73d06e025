"""The pictures of the 17 model-vs-human sets, with the category that people are asked for.

Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021, arXiv:2106.07411.
"""

import functools
import hashlib
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import read_picture
from robust_bench.datasets.stimulus import CATEGORIES, ENDINGS, stimulus
from robust_bench.fingerprint import without_addresses
from robust_bench.preprocess import AsStored


class Stimuli(Dataset[tuple[Tensor, int]]):
    """The pictures of one set; float images in [0, 1] and the category's position in alphabetical order come out.

    Args:
        path: the folder of the set. Pictures are taken from all folders in it, but only from `dnn` where there is one.
        dataset: name of the set, one of `IMAGES`.
        preprocess: what is done to the pictures; None takes their 224 x 224 pixels as they are.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no pictures, a name cannot be read, or two pictures have the same id under one
            condition; and for an unreadable picture when it is taken.
    """

    def __init__(self, path: str | Path, *, dataset: str, preprocess: Treatment | None = None) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.preprocess: Treatment = preprocess or AsStored(stored=224)
        self._transform = self.preprocess.transform()
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder {self.path} with the pictures of the set {dataset}")
        inner = self.path / "dnn"
        self._names = sorted(
            file.relative_to(self.path).as_posix()
            for file in (inner if inner.is_dir() else self.path).rglob("*")
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
        )
        if not self._names:
            raise ValueError(f"no pictures of the set {dataset} below {self.path}: expected .png files")
        self.stimuli = tuple(stimulus(dataset, (self.path / name).as_posix()) for name in self._names)
        self._check_ids()

    def _check_ids(self) -> None:
        seen: dict[tuple[str, str], str] = {}
        for name, each in zip(self._names, self.stimuli, strict=True):
            other = seen.setdefault((each.condition, each.id), name)
            if other != name:
                raise ValueError(
                    f"two pictures in {self.path} are both {each.id!r} under the condition {each.condition}: {other} "
                    f"and {name}; keep one of them"
                )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names and sizes of all files, and of what is done to the pictures."""
        found = hashlib.sha256(without_addresses(self.preprocess).encode())
        for name in self._names:
            found.update(f"{name}\t{(self.path / name).stat().st_size}\n".encode())
        return found.hexdigest()

    def filename(self, index: int) -> str:
        """The path of a picture, from the folder of the set."""
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.path / self._names[index]
        picture = read_picture(file, name=str(file), transform=self._transform)
        return picture, CATEGORIES.index(self.stimuli[index].category)
