"""Training images in an order that depends on seed and epoch alone, and the part of them that is held out."""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from robust_bench.datasets import Folder, digits
from timm.data import create_transform  # type: ignore[attr-defined]
from timm.data.readers.img_extensions import get_img_extensions
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from robust_train.config import Recipe
from robust_train.errors import SetupError
from robust_train.processes import ALONE, Processes
from robust_train.seeds import derive, permutation
from robust_train.settings import DigitsData, FolderData


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The two parts of a training set.

    Attributes:
        training: images and labels to train on; drawn anew for every epoch where there is augmentation.
        validation: other images of the same set, never trained on, without augmentation.
        batch_size: images per update.
        drop_last: leave out the images that do not fill the last batch.
        seed: of order and augmentation.
        workers: processes that read image files; the result does not depend on it.
        shape: (channels, height, width) of an image.
        fingerprint: plain values that tell these data from others.
    """

    training: Dataset[Any]
    validation: Dataset[Any]
    shape: tuple[int, int, int]
    fingerprint: dict[str, Any]
    batch_size: int
    drop_last: bool
    seed: int
    workers: int

    @property
    def updates(self) -> int:
        """Updates per epoch."""
        count, size = self.sizes[0], self.batch_size
        return count // size if self.drop_last else -(-count // size)

    @property
    def sizes(self) -> list[int]:
        """Images in the training and in the validation part."""
        return [len(self.training), len(self.validation)]  # type: ignore[arg-type]

    @property
    def smallest_batch(self) -> int:
        """Images in the smallest batch of an epoch."""
        return self.batch_size if self.drop_last else self.sizes[0] % self.batch_size or self.batch_size

    def size_of(self, update: int) -> int:
        """Images in the batch of an update, over all processes."""
        last = (update + 1) % self.updates == 0
        return self.smallest_batch if last else self.batch_size

    def batches(
        self, epoch: int, skip: int = 0, processes: Processes = ALONE
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """An epoch, without its first `skip` batches; of every batch the part of this process.

        Yields:
            Images (N, C, H, W) in [0, 1], labels (N,), and the images' places in the whole batch (N,).
        """
        order = permutation(self.sizes[0], derive(self.seed, "order", epoch))
        batches = list(torch.split(order, self.batch_size))[: self.updates][skip:]
        parts = [processes.part(batch) for batch in batches]
        places = [processes.part(torch.arange(len(batch))) for batch in batches]
        if isinstance(self.training, TensorDataset):
            for indices, place in zip(parts, places, strict=True):
                yield (*self.training[indices], place)
            return
        loader: DataLoader[Any] = DataLoader(
            _Seeded(self.training, derive(self.seed, "augment", epoch)),
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(0),  # or else it draws from the global one
            pin_memory=torch.cuda.is_available(),
        )
        for (images, labels), place in zip(loader, places, strict=True):
            yield images, labels, place


def load_data(recipe: Recipe, root: str | os.PathLike[str] | None = None, workers: int = 0) -> TrainingData:
    """Open the training set of a recipe and hold a part of it out for validation.

    The held-out images are chosen by the recipe's seed, by nothing else. The test set is never opened.

    Args:
        recipe: its sections data and model, its batch size and seed.
        root: the folder of the images for `data.name: folder`.
        workers: processes that read image files.

    Raises:
        SetupError: if `root` is missing or not needed, or the data do not agree with the model.
        FileNotFoundError: if there is no such folder.
    """
    settings = recipe.data
    if workers < 0:
        raise SetupError(f"workers must not be negative, got {workers}: 0 reads the images in this process")
    if isinstance(settings, DigitsData):
        if root is not None:
            raise SetupError(f"the digits are embedded: leave the data folder out (got {root})")
        images, labels = digits("train").tensors
        _check(recipe, classes=10, channels=1)
        count, shape = len(images), (1, 8, 8)
        content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        fingerprint = {"number of images": count, "content": content}
    else:
        if root is None:
            raise SetupError("the recipe trains on a folder of images: say where it is (data=..., or --data DIR)")
        place = Path(root) / "train" if (Path(root) / "train").is_dir() else Path(root)
        try:
            training, validation = (Folder(place, transform=transform) for transform in _transforms(settings))
        except ValueError as error:
            raise SetupError(str(error)) from error
        _check(recipe, classes=len(training.classes), channels=3)
        count, shape = len(training), (3, settings.size, settings.size)
        fingerprint = {"number of images": count, "classes": list(training.classes), "files": _hash_names(place)}
    order = permutation(count, derive(recipe.seed, "held out"))
    held_out = max(1, round(settings.held_out * count))
    kept, away = order[held_out:].sort().values, order[:held_out].sort().values
    if isinstance(settings, DigitsData):
        parts: tuple[Dataset[Any], Dataset[Any]]
        parts = TensorDataset(images[kept], labels[kept]), TensorDataset(images[away], labels[away])
    else:
        parts = Subset(training, kept.tolist()), Subset(validation, away.tolist())
    data = TrainingData(
        training=parts[0],
        validation=parts[1],
        shape=shape,
        fingerprint=fingerprint,
        batch_size=recipe.batch_size,
        drop_last=settings.drop_last,
        seed=recipe.seed,
        workers=workers,
    )
    if not data.updates:
        raise SetupError(
            f"{len(kept)} training images do not fill a batch of {recipe.batch_size}: make batch_size smaller"
        )
    return data


def _check(recipe: Recipe, classes: int, channels: int) -> None:
    for setting, has in (("num_classes", classes), ("in_chans", channels)):
        if (wanted := getattr(recipe.model, setting)) != has:
            raise SetupError(f"model.{setting} is {wanted}, but the data have {has}: set model.{setting} to {has}")


def _hash_names(folder: Path) -> str:
    """The sha256 of the image files' relative paths and sizes; reading all pixels would take too long."""
    endings = get_img_extensions()  # type: ignore[no-untyped-call]
    walk = os.walk(folder, followlinks=True)  # as timm looks for them
    files = (Path(place, name) for place, _, names in walk for name in names)
    lines = [
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n"
        for path in files
        if path.suffix.lower() in endings
    ]
    return hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def _transforms(settings: FolderData) -> tuple[Any, Any]:
    """Timm's transforms for training and validation; mean 0 and std 1 leave pixels in [0, 1]."""
    common: dict[str, Any] = {"input_size": (3, settings.size, settings.size), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    common |= {"interpolation": settings.interpolation}
    training = create_transform(
        **common,
        is_training=True,
        scale=settings.scale,
        hflip=settings.flip,
        color_jitter=settings.color_jitter,
        auto_augment=None,
    )
    return training, create_transform(**common, is_training=False, crop_pct=settings.crop)


class _Seeded(Dataset[Any]):
    """A data set whose augmentation draws from a seed of its own for every image and epoch.

    timm's transforms draw from Python's and torch's global generators; both get their state back.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, index: int) -> Any:
        seed, before = derive(self.seed, index), random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                random.seed(seed)
                torch.default_generator.manual_seed(seed)
                return self.dataset[index]
        finally:
            random.setstate(before)
