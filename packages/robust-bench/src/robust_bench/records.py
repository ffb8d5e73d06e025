"""What a model said about images, image by image, and the lines that keep it."""

import contextlib
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BROKEN_BY = "broken_by"


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a model said about some images under one condition.

    Args:
        predictions: the class of the largest score, int64 (n,).
        confidences: its softmax probability, float32 (n,).
        right: whether the image counts as right, bool (n,); under an attack, right when clean as well.
        seconds: wall-clock time that this took; the judge measures that of conditions.
        broken_by: under several attacks, for each image the one that broke it, `"clean"` where it was wrong at first,
            None where it stands; else None.
        more: further columns by name, each (n,) of integers, booleans or finite floats.
    """

    predictions: Tensor
    confidences: Tensor
    right: Tensor
    seconds: float = 0.0
    broken_by: tuple[str | None, ...] | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.right)

    @classmethod
    def of(
        cls,
        scores: Tensor,
        labels: Tensor,
        *,
        right: Tensor | None = None,
        seconds: float = 0.0,
        more: Mapping[str, Tensor] | None = None,
    ) -> "Records":
        """What scores say of images, on the CPU.

        Args:
            scores: (n, C) on any device.
            labels: (n,) there.
            right: whether the images count as right, (n,) there; None means those whose largest score is the label's.
            seconds: that it took.
            more: further columns.
        """
        predictions = scores.argmax(dim=1)
        confidences = scores.float().softmax(dim=1).gather(1, predictions[:, None])[:, 0]
        counted = predictions == labels if right is None else right
        found = torch.stack([predictions.double(), confidences.double(), counted.double()]).cpu()  # waits once
        return cls(
            predictions=found[0].long(),
            confidences=found[1].float(),
            right=found[2].bool(),
            seconds=seconds,
            more={name: column.cpu() for name, column in (more or {}).items()},
        )

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """Put the records of several groups of images one after another."""
        if not parts:
            none = torch.empty(0, dtype=torch.int64)
            return cls(predictions=none, confidences=none.float(), right=none.bool(), seconds=0.0)
        broken_by = [part.broken_by for part in parts if part.broken_by is not None]
        return cls(
            predictions=torch.cat([part.predictions for part in parts]),
            confidences=torch.cat([part.confidences for part in parts]),
            right=torch.cat([part.right for part in parts]),
            seconds=sum(part.seconds for part in parts),
            broken_by=tuple(stage for stages in broken_by for stage in stages) if broken_by else None,
            more={name: torch.cat([part.more[name] for part in parts]) for name in parts[0].more},
        )

    def select(self, rows: slice) -> "Records":
        """The records of some of the images, with their share of the time."""
        right = self.right[rows]
        return Records(
            predictions=self.predictions[rows],
            confidences=self.confidences[rows],
            right=right,
            seconds=self.seconds * len(right) / max(len(self), 1),
            broken_by=None if self.broken_by is None else self.broken_by[rows],
            more={name: column[rows] for name, column in self.more.items()},
        )

    def replaced(self, rows: Tensor, others: "Records") -> "Records":
        """These records with others in place of some rows."""

        def put(column: Tensor, new: Tensor) -> Tensor:
            return column.index_copy(0, rows, new)

        return Records(
            predictions=put(self.predictions, others.predictions),
            confidences=put(self.confidences, others.confidences),
            right=put(self.right, others.right),
            seconds=self.seconds + others.seconds,
            more={name: put(column, others.more[name]) for name, column in self.more.items()},
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what follows prediction, confidence and right in a line."""
        return (*(() if self.broken_by is None else (BROKEN_BY,)), *self.more)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image as a record file has it.

    Args:
        id: position of the image in its data set.
        label: its class.
        name: its file, where the data set knows it.
        predictions: for every condition the predicted class.
        confidences: for every condition the softmax probability of that class.
        right: for every condition whether it counts as right.
        broken_by: for every condition of several attacks which of them broke it; else None.
        more: for every condition its further columns.
    """

    id: int
    label: int
    name: str | None = None
    predictions: tuple[int, ...]
    confidences: tuple[float, ...]
    right: tuple[bool, ...]
    broken_by: tuple[str | None, ...]
    more: tuple[Mapping[str, float], ...] = ()


def lines(
    ids: Sequence[int], labels: Sequence[int], conditions: Sequence[Records], names: Sequence[str] | None = None
) -> str:
    """Write records as JSON lines: `{"id", "label", "name", "seen"}`, where `seen` has per condition a list.

    Such a list holds prediction, confidence, 1 or 0 for right or wrong, and then what `Records.columns` names.
    """
    columns = [
        list(
            zip(
                records.predictions.tolist(),
                numbers(records.confidences),
                records.right.int().tolist(),
                *(() if records.broken_by is None else (records.broken_by,)),
                *(numbers(column) for column in records.more.values()),
                strict=True,
            )
        )
        for records in conditions
    ]
    out = []
    for row, (number, label) in enumerate(zip(ids, labels, strict=True)):
        entry: dict[str, Any] = {"id": number, "label": label}
        if names is not None:
            entry["name"] = names[row]
        entry["seen"] = [column[row] for column in columns]
        out.append(json.dumps(entry, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(out)


def read_records(path: str | Path) -> Iterator[Seen]:
    """Read a record file, image after image, in the order of their ids; skipped images are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut off or of something else; it is named.
    """
    columns: list[list[str]] = []
    for entry in _entries(Path(path)):
        if "shard" in entry:
            columns = entry["columns"]
        elif "error" not in entry:
            with _explained(path):
                yield _seen(entry, columns)


def read_damaged(path: str | Path) -> list[str]:
    """Read from a record file why images were skipped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut off or of something else; it is named.
    """
    return [entry["error"] for entry in _entries(Path(path)) if "error" in entry]


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise FileNotFoundError(
            f"no records {file}: `robust-bench run --out OUT` writes OUT/evaluations/NAME/records.jsonl.gz"
        )
    with _explained(file), gzip.open(file, "rt", encoding="utf-8") as text:
        for line in text:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not ("id" in entry or "columns" in entry):
                raise ValueError("a line of something else")
            yield entry


@contextlib.contextmanager
def _explained(file: str | Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as records ({error}): was its writing cut off?") from error


def numbers(column: Tensor) -> list[Any]:
    """Give a column as it is kept: truths as 0 and 1, floats with six digits."""
    if column.dtype == torch.bool:
        return column.int().tolist()
    return [round(value, 6) for value in column.tolist()] if column.is_floating_point() else column.tolist()


def _seen(entry: dict[str, Any], columns: list[list[str]]) -> Seen:
    seen = entry["seen"]
    more = [dict(zip(names, each[3:], strict=True)) for names, each in zip(columns, seen, strict=True)]
    return Seen(
        id=entry["id"],
        label=entry["label"],
        name=entry.get("name"),
        predictions=tuple(each[0] for each in seen),
        confidences=tuple(each[1] for each in seen),
        right=tuple(bool(each[2]) for each in seen),
        broken_by=tuple(each.pop(BROKEN_BY, None) for each in more),
        more=tuple(more),
    )
