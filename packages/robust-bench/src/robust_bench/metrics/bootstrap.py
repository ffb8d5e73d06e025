"""Bootstrap intervals: how far a score would move if other images of the same kind had been drawn."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CHUNK = 2**22  # numbers held at once, 32 MiB


@dataclass(frozen=True, kw_only=True)
class BootstrapInterval:
    """A score with its percentile interval, and what is needed to get it again.

    Args:
        value: the score of the data themselves.
        low: lower end.
        high: upper end.
        confidence: the share of resamples inside, e.g. 0.95.
        resamples: how many were drawn (B).
        seed: of the draws.
    """

    value: float
    low: float
    high: float
    confidence: float
    resamples: int
    seed: int


def bootstrap(
    arrays: Sequence[Tensor],
    statistic: Callable[..., float],
    *,
    strata: Tensor | Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> BootstrapInterval:
    """Give the percentile interval of any score of per-image arrays, by drawing images with replacement.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979); the percentile interval:
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, with quantiles interpolated linearly. One
    resample serves all arrays, so that what belongs to one image stays together: pairing two models' arrays gives the
    interval of their difference. Scores that depend on means alone are far quicker with `bootstrap_means`, which draws
    the same resamples for the same seed.

    Args:
        arrays: each with one entry per image (N, ...), in the same order, e.g. (confidence, correct).
            Where they are not numbers, resample positions: `(torch.arange(N),)`.
        statistic: called as `statistic(*arrays)` on the images of a resample; a finite number.
        strata: (N,) integers: images are drawn within each stratum, whose sizes stay. For ImageNet-O, whose score needs
            a fixed number of images of either set. None means one stratum.
        resamples: how many to draw (B).
        seed: the same seed gives the same interval.
        confidence: the share of resamples inside, in (0, 1).

    Returns:
        The score and its interval, with `resamples` and `seed`.

    Raises:
        ValueError: if the arrays differ in length, there are fewer than two images, a setting is impossible, or the
            statistic is not finite on some resample.

    Examples:
        >>> right = torch.tensor([True, True, True, False] * 25)
        >>> found = bootstrap((right,), lambda right: right.double().mean().item())
        >>> found.value, 0.64 < found.low < 0.69, 0.81 < found.high < 0.86
        (0.75, True, True)
    """
    tensors = [torch.as_tensor(array) for array in arrays]
    count = _check_arrays({f"arrays[{index}]": tensor for index, tensor in enumerate(tensors)})
    _check_settings(resamples, confidence)
    groups = _groups(strata, count)
    value = _finite(statistic(*tensors), "the data")
    scores = [
        _finite(statistic(*(tensor[drawn.to(tensor.device)] for tensor in tensors)), f"resample {number}")
        for number, drawn in enumerate(_draws(groups, resamples, seed), start=1)
    ]
    return _interval(value, scores, seed=seed, confidence=confidence)


def bootstrap_means(
    values: Mapping[str, Tensor],
    statistic: Callable[[Any], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> BootstrapInterval:
    """Give the percentile interval of a score of means over images, such as mCE or mFR.

    As `bootstrap`, but a resample is a vector of how often each image was drawn, so that all means of many resamples
    are one matrix product. All corruptions and severities of a set share their images and thus the resample.

    Args:
        values: by name, e.g. corruption: one number per image (N,), or per image and severity (N, S); for mCE whether
            the image was misclassified, for mFR the share of flips of its sequence. The same images in the same order
            under all names.
        statistic: from the means to the score; the means are a dict with one float, or a list of S floats, per name.
        resamples: how many to draw (B).
        seed: the same seed gives the same interval.
        confidence: the share of resamples inside, in (0, 1).

    Returns:
        The score and its interval, with `resamples` and `seed`.

    Raises:
        TypeError: if `values` is not a mapping.
        ValueError: if the arrays differ in length or hold what is not finite, there are fewer than two images, a
            setting is impossible, or the statistic is not finite on some resample; and what the statistic raises.

    Examples:
        >>> from robust_bench.metrics.corruption_error import mean_corruption_error
        >>> wrong = {"fog": torch.tensor([[0, 1], [0, 0], [1, 1], [0, 1]] * 25)}
        >>> found = bootstrap_means(wrong, lambda errors: mean_corruption_error(errors, {"fog": [0.5, 0.75]}))
        >>> found.value, found.low < 0.8 < found.high, found.resamples, found.seed
        (0.8, True, 1000, 0)
    """
    tensors = _tensors(values)
    count = _check_arrays(tensors)
    _check_settings(resamples, confidence)
    table = torch.cat([tensor.reshape(count, -1) for tensor in tensors.values()], dim=1)
    if not bool(table.isfinite().all()):
        raise ValueError("values must be finite numbers: an image without a value has no place in a mean")
    value = _finite(statistic(_named((table.sum(dim=0) / count).tolist(), tensors)), "the data")
    sums = torch.cat([counts @ table for counts in _counts(count, resamples, seed)])
    scores = [
        _finite(statistic(_named(row, tensors)), f"resample {number}")
        for number, row in enumerate((sums / count).tolist(), start=1)
    ]
    return _interval(value, scores, seed=seed, confidence=confidence)


def _draws(groups: Sequence[Tensor], resamples: int, seed: int) -> Iterator[Tensor]:
    """Draw the positions of each resample's images, within each group."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(resamples):
        yield torch.cat([group[torch.randint(len(group), (len(group),), generator=generator)] for group in groups])


def _counts(count: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Count how often each resample has each image: float64 (some resamples, count)."""
    rows: list[Tensor] = []
    for drawn in _draws((torch.arange(count),), resamples, seed):
        rows.append(torch.bincount(drawn, minlength=count).to(torch.float64))
        if len(rows) * count >= _CHUNK:
            yield torch.stack(rows)
            rows.clear()
    if rows:
        yield torch.stack(rows)


def _tensors(values: object) -> dict[str, Tensor]:
    if not isinstance(values, Mapping):
        raise TypeError(f"values must map names to tensors (N,) or (N, S), got {type(values).__name__}")
    tensors = {name: torch.as_tensor(array).detach().cpu().to(torch.float64) for name, array in values.items()}
    for name, tensor in tensors.items():
        if tensor.ndim not in (1, 2) or 0 in tensor.shape[1:]:
            raise ValueError(f"values[{name!r}] must have the shape (N,) or (N, severities), got {tuple(tensor.shape)}")
    return tensors


def _named(means: list[float], tensors: Mapping[str, Tensor]) -> dict[str, float | list[float]]:
    """Give a flat list of means the names and shapes of the columns that they are of."""
    found: dict[str, float | list[float]] = {}
    start = 0
    for name, tensor in tensors.items():
        width = 1 if tensor.ndim == 1 else tensor.shape[1]
        found[name] = means[start] if tensor.ndim == 1 else means[start : start + width]
        start += width
    return found


def _groups(strata: Tensor | Sequence[int] | None, count: int) -> list[Tensor]:
    if strata is None:
        return [torch.arange(count)]
    labels = torch.as_tensor(strata).cpu()
    if labels.shape != (count,):
        raise ValueError(f"strata must have the shape ({count},), one per image, got {tuple(labels.shape)}")
    return [torch.nonzero(labels == label)[:, 0] for label in sorted(set(labels.tolist()))]


def _check_arrays(arrays: Mapping[str, Tensor]) -> int:
    """Find the number of images.

    Raises:
        ValueError: if the arrays do not agree on it, or it is too small.
    """
    if not arrays:
        raise ValueError("there is nothing to resample: give at least one array")
    if any(array.ndim == 0 for array in arrays.values()):
        raise ValueError("every array needs one entry per image as its first axis, got a single number")
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"all arrays must have the same images in the same order, got different numbers: {listed}")
    count = next(iter(sizes.values()))
    if count < 2:
        raise ValueError(f"an interval needs at least two images to draw from, got {count}")
    return count


def _check_settings(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, e.g. 1000, got {resamples}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, e.g. 0.95, got {confidence}")


def _finite(score: float, where: str) -> float:
    number = float(score)
    if not math.isfinite(number):
        raise ValueError(f"the statistic is {number} on {where}, so there is no interval: it needs more images")
    return number


def _interval(value: float, scores: Sequence[float], *, seed: int, confidence: float) -> BootstrapInterval:
    tail = (1.0 - confidence) / 2.0
    ends = torch.tensor([tail, 1.0 - tail], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(scores, dtype=torch.float64), ends).tolist()
    return BootstrapInterval(value=value, low=low, high=high, confidence=confidence, resamples=len(scores), seed=seed)
