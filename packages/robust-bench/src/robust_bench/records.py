"""What a model said about images, image by image, and the lines that keep it."""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a model said about some images under one condition.

    Args:
        predictions: the class of the largest logit, int64 (n,).
        confidences: its softmax probability, float32 (n,).
        right: whether the image counts as right, bool (n,); under an attack, right when clean as well.
        seconds: wall-clock time that this took.
        broken_by: under several attacks, for each image the one that broke it, `"clean"` where it was wrong at first,
            None where it stands; else None.
    """

    predictions: Tensor
    confidences: Tensor
    right: Tensor
    seconds: float
    broken_by: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.right)

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """Put the records of several groups of images one after another."""
        broken_by = [part.broken_by for part in parts if part.broken_by is not None]
        return cls(
            predictions=torch.cat([part.predictions for part in parts]),
            confidences=torch.cat([part.confidences for part in parts]),
            right=torch.cat([part.right for part in parts]),
            seconds=sum(part.seconds for part in parts),
            broken_by=tuple(stage for stages in broken_by for stage in stages) if broken_by else None,
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
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image as a record file has it.

    Args:
        id: position of the image in its data set.
        label: its class.
        predictions: for every condition the predicted class.
        confidences: for every condition the softmax probability of that class.
        right: for every condition whether it counts as right.
        broken_by: for every condition of several attacks which of them broke it; else None.
    """

    id: int
    label: int
    predictions: tuple[int, ...]
    confidences: tuple[float, ...]
    right: tuple[bool, ...]
    broken_by: tuple[str | None, ...]


def lines(ids: Sequence[int], labels: Sequence[int], conditions: Sequence[Records]) -> str:
    """Write records as JSON lines: `{"id", "label", "seen"}`, where `seen` has per condition a list.

    Such a list holds prediction, confidence, 1 or 0 for right or wrong, and under several attacks the one that broke
    the image.
    """
    columns = [
        list(
            zip(
                records.predictions.tolist(),
                (round(confidence, 6) for confidence in records.confidences.tolist()),
                records.right.int().tolist(),
                *(() if records.broken_by is None else (records.broken_by,)),
                strict=True,
            )
        )
        for records in conditions
    ]
    out = []
    for row, (number, label) in enumerate(zip(ids, labels, strict=True)):
        entry = {"id": number, "label": label, "seen": [column[row] for column in columns]}
        out.append(json.dumps(entry, separators=(",", ":"), allow_nan=False))
    return "\n".join(out) + "\n"


def read_records(path: str | Path) -> Iterator[Seen]:
    """Read a record file, image after image, in the order of their ids.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut off or of something else; it is named.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"no records {file}: `robust-bench run --out OUT` writes OUT/evaluations/NAME/records.jsonl.gz"
        )
    try:
        with gzip.open(file, "rt", encoding="utf-8") as text:
            for line in text:
                entry = json.loads(line)
                if "shard" not in entry:
                    yield _seen(entry)
    except (EOFError, gzip.BadGzipFile, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as records ({error}): was its writing cut off?") from error


def _seen(entry: dict[str, Any]) -> Seen:
    seen = entry["seen"]
    return Seen(
        id=entry["id"],
        label=entry["label"],
        predictions=tuple(each[0] for each in seen),
        confidences=tuple(each[1] for each in seen),
        right=tuple(bool(each[2]) for each in seen),
        broken_by=tuple(each[3] if len(each) > 3 else None for each in seen),
    )
