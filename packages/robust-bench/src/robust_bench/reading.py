"""Batches of a data set or a loader, in the order of its images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    default_collate,
)


def check_order(loader: DataLoader[Any]) -> None:
    """Refuse a loader that leaves images out or gives them in another order.

    Raises:
        ValueError: if it does.
    """
    if loader.drop_last or getattr(loader.batch_sampler, "drop_last", False):
        raise ValueError("the loader has drop_last=True, which would leave images out: use drop_last=False")
    if isinstance(loader.dataset, IterableDataset):
        if loader.num_workers > 1:
            raise ValueError(
                f"the loader reads an IterableDataset in {loader.num_workers} processes, each of which goes through "
                "all of it, or through a part out of order: use num_workers=0 or 1"
            )
        return
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    if type(inner) is not SequentialSampler:
        raise ValueError(
            f"the loader takes its data by {type(inner).__name__}, but an image's id must be its position in the data: "
            "use shuffle=False, or pass the data set itself"
        )


def count_images(source: DataLoader[Any] | Dataset[Any]) -> int | None:
    """How many images there are, None where that is unknown: the length of a loader is that of its batches."""
    if isinstance(source, DataLoader):
        return None
    try:
        return len(cast("Any", source))
    except TypeError:
        return None


def all_batches(source: DataLoader[Any] | Dataset[Any], batch_size: int, workers: int) -> Iterator[Any]:
    """All batches; a loader has its own."""
    if type(source) is TensorDataset:  # in memory: slices, without collecting image by image
        for start in range(0, len(source), batch_size):
            yield tuple(tensor[start : start + batch_size] for tensor in source.tensors)
        return
    if isinstance(source, DataLoader):
        yield from source
        return
    if isinstance(source, IterableDataset):
        workers = min(workers, 1)  # every process would go through all of it
    yield from DataLoader(source, batch_size, num_workers=workers)


@dataclass(frozen=True)
class Damaged:
    """An item that could not be read, and why."""

    reason: str


class Skipping(Dataset[Any]):
    """A data set that gives `Damaged` in place of an item that cannot be read."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(cast("Any", self.data))

    def __getitem__(self, index: int) -> Any:
        try:
            return self.data[index]
        except (FileNotFoundError, ValueError) as error:  # other errors of a file system may pass, and stop the run
            return Damaged(f"{error}")


@dataclass(frozen=True)
class Read:
    """What was read of some images: the pairs of those that could be, their ids, and why the others could not."""

    pairs: Any
    ids: list[int]
    damaged: dict[int, str]


def numbered_batches(source: Any, parts: list[list[int]], workers: int, *, skip: bool = False) -> Iterator[Read]:
    """Batches of the given ids, read ahead of their use by the workers; damaged images are skipped or stop it."""
    if type(source) is TensorDataset:  # in memory: without collecting image by image
        for ids in parts:
            yield Read(tuple(tensor[ids] for tensor in source.tensors), ids, {})
        return
    if not skip:
        loader = DataLoader(source, batch_sampler=parts, num_workers=workers)
        yield from (Read(pairs, ids, {}) for pairs, ids in zip(loader, parts, strict=True))
        return
    loader = DataLoader(Skipping(source), batch_sampler=parts, num_workers=workers, collate_fn=_sort_out)
    for (pairs, damaged), ids in zip(loader, parts, strict=True):
        kept = [id_ for place, id_ in enumerate(ids) if place not in damaged]
        yield Read(pairs, kept, {ids[place]: reason for place, reason in damaged.items()})


def _sort_out(items: list[Any]) -> tuple[Any, dict[int, str]]:
    """Put the items that could be read into one batch, None if there is none; the others by their place."""
    damaged = {place: item.reason for place, item in enumerate(items) if isinstance(item, Damaged)}
    good = [item for item in items if not isinstance(item, Damaged)]
    return default_collate(good) if good else None, damaged
