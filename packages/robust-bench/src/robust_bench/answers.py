"""What a model said about all images of a part, as arrays."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robust_bench.records import Records, Seen, numbers

if TYPE_CHECKING:
    from robust_bench.part import Part
    from robust_bench.shards import Shards


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model said about all images of a part under one condition, in the order of their ids.

    Args:
        benchmark: of its rows.
        settings: of the condition.
        condition: its label.
        ids: positions in the data set, ascending, (n,) int64; images that were skipped are missing.
        labels: (n,) int64.
        predictions: (n,) int64.
        confidences: (n,) float32.
        right: (n,) bool.
        more: the further columns, (n,) each, e.g. "top5", "loss", or what a condition of its own measures.
        broken_by: for each image the attack of several that broke it, None where it stands; None without such.
        names: of the images, where the data set has a method `filename(index)`.
    """

    benchmark: str
    settings: Mapping[str, Any]
    condition: str
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    more: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    broken_by: tuple[str | None, ...] | None = None
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


Conditions = Sequence[tuple[str, Mapping[str, Any]]]
"""Label and settings of every condition of a part."""


def from_records(part: "Part", labels: Tensor, records: Sequence[Records]) -> tuple[Answers, ...]:
    """The answers about all images of a part, from their records in memory."""
    name = getattr(part.data, "filename", None)
    names = None if name is None else tuple(str(name(index)) for index in range(len(labels)))
    return tuple(
        Answers(
            benchmark=part.label,
            settings=condition.settings,
            condition=condition.label,
            ids=np.arange(len(labels)),
            labels=labels.numpy(),
            predictions=each.predictions.numpy(),
            confidences=np.asarray(numbers(each.confidences), dtype=np.float32),
            right=each.right.numpy(),
            more={column: np.asarray(numbers(values)) for column, values in each.more.items()},
            broken_by=each.broken_by,
            names=names,
        )
        for condition, each in zip(part.conditions, records, strict=True)
    )


def from_shards(part: "Part", shards: "Shards") -> tuple[Answers, ...]:
    """The answers about all images of a part, from finished shards."""
    conditions = [(condition.label, condition.settings) for condition in part.conditions]
    return from_lines(part.label, conditions, shards.records())


def from_lines(benchmark: str, conditions: Conditions, records: Iterable[Seen]) -> tuple[Answers, ...]:
    """The answers about images from their records, read one after another.

    Args:
        benchmark: of the rows.
        conditions: label and settings of each.
        records: of all images.
    """
    ids: list[int] = []
    labels: list[int] = []
    names: list[str] = []
    columns: list[_Columns] = [_Columns() for _ in conditions]
    for seen in records:
        ids.append(seen.id)
        labels.append(seen.label)
        if seen.name is not None:
            names.append(sys.intern(seen.name))  # the same in all cells of a corrupted set
        for number, column in enumerate(columns):
            column.add(seen, number)
    return tuple(
        Answers(
            benchmark=benchmark,
            settings=settings,
            condition=label,
            ids=np.asarray(ids, dtype=np.int64),
            labels=np.asarray(labels, dtype=np.int64),
            predictions=np.asarray(column.predictions, dtype=np.int64),
            confidences=np.asarray(column.confidences, dtype=np.float32),
            right=np.asarray(column.right, dtype=np.bool_),
            more={name: np.asarray(values) for name, values in column.more.items()},
            broken_by=tuple(column.broken_by) if any(stage is not None for stage in column.broken_by) else None,
            names=tuple(names) if names else None,
        )
        for (label, settings), column in zip(conditions, columns, strict=True)
    )


class _Columns:
    def __init__(self) -> None:
        self.predictions: list[int] = []
        self.confidences: list[float] = []
        self.right: list[bool] = []
        self.broken_by: list[str | None] = []
        self.more: dict[str, list[float]] = {}

    def add(self, seen: Seen, number: int) -> None:
        self.predictions.append(seen.predictions[number])
        self.confidences.append(seen.confidences[number])
        self.right.append(seen.right[number])
        self.broken_by.append(seen.broken_by[number])
        for name, value in seen.more[number].items():
            self.more.setdefault(name, []).append(value)
