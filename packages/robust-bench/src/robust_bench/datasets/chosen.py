"""Some of the images of a data set."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, TensorDataset

from robust_bench.fingerprint import data_hash


class Chosen(Dataset[Any]):
    """Items of a data set at some positions, in their order.

    Args:
        data: the whole data set.
        positions: of the items.
    """

    def __init__(self, data: Dataset[Any], positions: Sequence[int]) -> None:
        self.data = data
        self.positions = tuple(positions)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the whole data set's fingerprint and the positions."""
        return hashlib.sha256(f"{data_hash(self.data)}{self.positions}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Any:
        return self.data[self.positions[index]]


class ChosenFiles(Chosen):
    """Items of a data set of files."""

    def filename(self, index: int) -> str:
        """Name the file of an item as the whole data set does."""
        return self.data.filename(self.positions[index])  # type: ignore[attr-defined, no-any-return]


def chosen(data: Dataset[Any], positions: Sequence[int]) -> Dataset[Any]:
    """Take the items of a data set at some positions; tensors in memory stay tensors in memory.

    Examples:
        >>> import torch
        >>> chosen(TensorDataset(torch.arange(10)), evenly_spaced(10, 4)).tensors
        (tensor([0, 2, 5, 7]),)
    """
    if type(data) is TensorDataset:
        return TensorDataset(*(tensor[list(positions)] for tensor in data.tensors))
    return (ChosenFiles if hasattr(data, "filename") else Chosen)(data, positions)


def evenly_spaced(size: int, count: int) -> list[int]:
    """Give `count` positions below `size`, all of them if there are not more.

    Of a data set that is ordered by class, every class gets its share of the positions, up to one.
    """
    return [number * size // count for number in range(count)] if count < size else list(range(size))
