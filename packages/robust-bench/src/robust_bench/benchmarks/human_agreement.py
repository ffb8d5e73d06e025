"""How far a mean error consistency would move with other pictures of the same kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robust_bench.benchmarks.human_answers import SetAnswers
from robust_bench.metrics import BootstrapInterval, bootstrap


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of observers who saw the same pictures under one condition.

    Args:
        one: whether the first observer of each pair is right on each picture, bool (pairs, pictures).
        other: the same of the second observer.
    """

    one: npt.NDArray[np.bool_]
    other: npt.NDArray[np.bool_]


def with_people(seen: SetAnswers) -> list[Pairs]:
    """Pair the model with every person, for each kept condition."""
    found = []
    for condition in seen.kept:
        people = _right(seen, condition)
        model = np.array(list(seen.model[condition].values()))
        found.append(Pairs(one=np.broadcast_to(model, people.shape), other=people))
    return found


def among_people(seen: SetAnswers) -> list[Pairs]:
    """Pair every two people, for each kept condition."""
    ones, others = zip(*combinations(range(len(seen.people)), 2), strict=True)
    right = (_right(seen, condition) for condition in seen.kept)
    return [Pairs(one=people[list(ones)], other=people[list(others)]) for people in right]


def error_consistency_interval(
    sets: Sequence[Sequence[Pairs]], *, resamples: int = 1000, seed: int = 0
) -> BootstrapInterval | None:
    """Give the mean error consistency over conditions and pairs, then over sets, with its bootstrap interval.

    The score is that of `metrics.mean_over_humans` and `metrics.mean_over_human_pairs`. Pictures are drawn within each
    condition, the same for all pairs of observers.

    Args:
        sets: of every set, its conditions, each with the same pairs of observers.
        resamples: how many to draw.
        seed: of the draws.

    Returns:
        The interval, None for a single picture.
    """
    conditions = [condition for each in sets for condition in each]
    sizes = [condition.one.shape[1] for condition in conditions]
    if sum(sizes) < 2:
        return None
    ends = np.cumsum(sizes)
    tables = [
        np.concatenate([condition.one, condition.other, condition.one == condition.other]).astype(np.float64)
        for condition in conditions
    ]
    firsts = np.cumsum([0, *(len(each) for each in sets[:-1])])
    counts = np.array([len(each) for each in sets])

    def statistic(pictures: Tensor) -> float:
        drawn = np.bincount(pictures.numpy(), minlength=ends[-1]).astype(np.float64)
        kappas = [
            _kappas(table @ drawn[end - size : end] / size).mean()
            for table, size, end in zip(tables, sizes, ends, strict=True)
        ]
        return float(np.mean(np.add.reduceat(kappas, firsts) / counts))

    strata = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return bootstrap((torch.arange(len(strata)),), statistic, strata=strata, resamples=resamples, seed=seed)


def _right(seen: SetAnswers, condition: str) -> npt.NDArray[np.bool_]:
    """Whether people are right, bool (people, pictures), in the order of the model's pictures."""
    return np.array(
        [[mine[condition][picture] for picture in seen.model[condition]] for mine in seen.people.values()],
        dtype=np.bool_,
    )


def _kappas(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cohen's kappa from the shares of pictures on which one is right, the other is, and both are alike."""
    one, other, observed = shares.reshape(3, -1)
    expected = one * other + (1.0 - one) * (1.0 - other)
    apart = observed < 1.0  # then the expected consistency is below 1 as well
    return np.where(apart, (observed - expected) / np.where(apart, 1.0 - expected, 1.0), 1.0)
