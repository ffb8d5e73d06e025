"""What a benchmark is made of: data sets under conditions, and scores over all of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from robust_bench.answer import Answer
from robust_bench.answers import Answers
from robust_bench.conditions import Clean, Condition
from robust_bench.result import Row

TOP5 = "top5"
"""The further column that tells whether the label is among the five largest scores."""

LOSS = "loss"
"""The further column of the cross-entropy of the scores."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set, the conditions under which a model sees it, and how its logits become an answer.

    Args:
        name: under which its evaluation is kept, e.g. "imagenet-c/fog-3"; benchmarks with a part of the same name share
            it.
        benchmark: the `benchmark` of its rows, e.g. "imagenet-c"; None means the name.
        data: a data set of (image, label) pairs, float images in [0, 1].
        conditions: what is done to the images.
        num_classes: how many classes the labels are of.
        in_chans: channels of the images.
        answer: from the model's logits to scores of the classes; None means the logits themselves.
        also: further columns of the records: "top5", "loss".
        accuracy: whether the share of right images is a result; not where labels are no truth, as on ImageNet-O.
        settings: what the data is and how it was preprocessed, as JSON values.
    """

    name: str
    benchmark: str | None = None
    data: Dataset[Any]
    conditions: tuple[Condition, ...] = (Clean(),)
    num_classes: int
    in_chans: int = 3
    answer: Answer | None = None
    also: tuple[str, ...] = ()
    accuracy: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The `benchmark` of its rows."""
        return self.benchmark or self.name


Found = Mapping[str, tuple[Answers, ...]]
"""For every part that has been evaluated, by name, its answers under each of its conditions."""

Scores = Callable[[Found], Iterable[Row]]
"""From what was found to the scores of a benchmark: pure, and only those for which all that they need is there."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Parts and scores under one name.

    Args:
        name: as in `names()`.
        parts: evaluated one after another.
        scores: over all parts, beside the accuracy of every part and condition.
    """

    name: str
    parts: tuple[Part, ...]
    scores: Scores | None = None


def image_shape(part: Part) -> tuple[int, ...]:
    """The shape (C, H, W) of a part's images, from the first that can be read.

    Raises:
        ValueError, OSError: what the first one raised, if there is none.
    """
    reason: Exception | None = None
    for index in range(len(part.data)):  # type: ignore[arg-type]  # those of benchmarks have a length
        try:
            return tuple(part.data[index][0].shape[-3:])
        except (OSError, ValueError) as error:
            reason = reason or error
    raise reason or ValueError(f"{part.label} holds no images")
