"""Batches of a data set that is gone through several times."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from robust_attacks._checks import check_images, check_labels
from robust_attacks._settings import check_count
from robust_attacks.random import ImageRandom

Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches of images (N, C, H, W) in [0, 1] and labels (N,), to be gone through several times, as a DataLoader."""


def source(given: Any, seed: int, batch_size: int) -> Callable[[int], Batches]:
    """From the number of an epoch to its batches."""
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        check_count("fit", "batch_size", batch_size)
        length = len(given)  # type: ignore[arg-type]

        def shuffled(epoch: int) -> Batches:
            random = ImageRandom(seed, torch.zeros(1, dtype=torch.int64))
            order: list[int] = random.choice(f"fit/order-{epoch}", length, length)[0].tolist()
            return DataLoader(given, batch_size=batch_size, sampler=order)

        return shuffled
    if isinstance(given, Tensor) or not isinstance(given, Iterable):
        raise TypeError(f"batches must be a Dataset or an iterable of (images, labels), got {type(given).__name__}")
    if isinstance(given, tuple) and any(isinstance(part, Tensor) for part in given):
        raise TypeError("batches must be an iterable of (images, labels), got one pair: pass [(images, labels)]")
    if isinstance(given, Iterator):  # not by iter(given), for which a DataLoader draws a random number
        raise ValueError(
            "the batches are gone through several times, got an iterator that ends after once: "
            "pass a list, a DataLoader or a Dataset"
        )
    return lambda _: given


def stream(batches: Batches, device: torch.device | str | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that have images, checked and moved."""
    for batch in batches:
        pair: Any = batch
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"every batch must be a pair of images and labels, got {type(pair).__name__}")
        images, labels = (part.to(device) if isinstance(part, Tensor) and device is not None else part for part in pair)
        check_images(images)
        check_labels(labels, images)
        if len(images):
            yield images.detach(), labels.clone()  # a clone can be differentiated with, wherever it was made
