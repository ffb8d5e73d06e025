"""Two models' answers about the same images, and the paired bootstrap of what differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_bench.answers import Answers
from robust_bench.metrics.bootstrap import BootstrapInterval, bootstrap, bootstrap_means


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What two models said of the same images under one condition.

    Args:
        part: of their runs.
        a: the first model's answers.
        b: the second one's.
    """

    part: str
    a: Answers
    b: Answers

    @property
    def both(self) -> tuple[Answers, Answers]:
        """The answers of either model."""
        return self.a, self.b


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A score of two models.

    Args:
        a: of the first.
        b: of the second.
        count: images.
        interval: of a - b; both models get the same resamples of the images.
    """

    a: float
    b: float
    count: int
    interval: BootstrapInterval


def paired_means(
    columns: Mapping[str, tuple[Tensor, Tensor]], statistic: Callable[[Any], float], *, resamples: int = 1000
) -> Paired:
    """Compare two models in a score of means over images; see `robust_bench.metrics.bootstrap_means`.

    Args:
        columns: by name the columns (N,) or (N, S) of the first and of the second model, about the same images.
        statistic: from the means by name to the score.
        resamples: how many to draw.

    Examples:
        >>> import torch
        >>> right = torch.tensor([True, True, True, False] * 25)
        >>> found = paired_means({"right": (right, ~right)}, lambda means: means["right"])
        >>> found.a, found.b, found.interval.value
        (0.75, 0.25, 0.5)
    """
    named = {f"{model} {name}": columns[name][model] for model in (0, 1) for name in columns}
    means = {key: column.double().mean(dim=0).tolist() for key, column in named.items()}

    def scores(means: Mapping[str, Any]) -> tuple[float, float]:
        one, other = ({name: means[f"{model} {name}"] for name in columns} for model in (0, 1))
        return statistic(one), statistic(other)

    def difference(drawn: Mapping[str, Any]) -> float:
        one, other = scores(drawn)
        return one - other

    a, b = scores(means)
    interval = bootstrap_means(named, difference, resamples=resamples)
    return Paired(a=a, b=b, count=len(next(iter(named.values()))), interval=interval)


def paired_arrays(
    a: Sequence[Tensor], b: Sequence[Tensor], statistic: Callable[..., float], *, resamples: int = 1000
) -> Paired:
    """Compare two models in any score of per-image arrays; see `robust_bench.metrics.bootstrap`.

    Args:
        a: the arrays (N, ...) of the first model.
        b: those of the second, about the same images.
        statistic: called as `statistic(*arrays)`.
        resamples: how many to draw.
    """

    def difference(*drawn: Tensor) -> float:
        return statistic(*drawn[: len(a)]) - statistic(*drawn[len(a) :])

    interval = bootstrap((*a, *b), difference, resamples=resamples)
    return Paired(a=statistic(*a), b=statistic(*b), count=len(a[0]), interval=interval)
