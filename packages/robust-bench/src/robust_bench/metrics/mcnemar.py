"""Is one model really better than another on the same images?"""

import math
from dataclasses import dataclass

from scipy.special import bdtr, ndtri

from robust_bench.metrics._columns import Values, check_confidence, check_lengths, truths


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two models on the same images.

    Args:
        only_a: images that only the first model gets right.
        only_b: images that only the second one gets right.
        count: all images.
        p_value: probability of a split at least as uneven, in either direction, between models of equal accuracy.
        difference: accuracy of the first model minus that of the second, a fraction.
        low: lower end of the difference's confidence interval.
        high: upper end.
    """

    only_a: int
    only_b: int
    count: int
    p_value: float
    difference: float
    low: float
    high: float


def mcnemar(correct_a: Values, correct_b: Values, confidence: float = 0.95) -> McNemar:
    """Test whether two models differ in accuracy, by the images that only one of them gets right.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika
    12 (1947). The p value is exact: between equal models each of the n = only_a + only_b images falls to either side
    like a fair coin, p = min(1, 2 P(Binomial(n, 1/2) <= min(only_a, only_b))). The interval of the difference inverts
    the score test of Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998). It is approximate, so that it may exclude 0 where the
    exact test, which is conservative, has a p value slightly above 1 - confidence.

    Args:
        correct_a: (N,) whether the first model is right; booleans, or 0 and 1.
        correct_b: (N,) whether the second model is right on the same images in the same order.
        confidence: the probability of covering the true difference, in (0, 1).

    Returns:
        Counts, p value, and the difference with its interval, in fractions.

    Raises:
        TypeError: if a column is not boolean.
        ValueError: if they are empty or of different lengths, or the confidence is impossible.

    Examples:
        >>> found = mcnemar([True] * 9 + [False], [True] * 3 + [False] * 7)
        >>> found.only_a, found.only_b, found.p_value
        (6, 0, 0.03125)
        >>> round(found.low, 3), found.difference, round(found.high, 3)
        (0.156, 0.6, 0.832)
    """
    check_confidence(confidence)
    a, b = truths("correct_a", correct_a), truths("correct_b", correct_b)
    check_lengths(correct_a=a, correct_b=b)
    only_a, only_b, count = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    z = float(ndtri(0.5 + confidence / 2.0))
    return McNemar(
        only_a=only_a,
        only_b=only_b,
        count=count,
        p_value=min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))),
        difference=(only_a - only_b) / count,
        low=-_upper(only_b, only_a, count, z),
        high=_upper(only_a, only_b, count, z),
    )


def _upper(only_a: int, only_b: int, count: int, z: float) -> float:
    """Find the difference above the observed one where Tango's statistic is -z, by halving."""
    low, high = (only_a - only_b) / count, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        excess = count * middle - (only_a - only_b)
        if excess < z * math.sqrt(_variance(middle, only_a, only_b, count)):
            low = middle
        else:
            high = middle
    return high


def _variance(difference: float, only_a: int, only_b: int, count: int) -> float:
    """Give the variance of only_a - only_b at the likeliest shares that have this difference."""
    a = 2.0 * count
    b = (2.0 * count - only_a + only_b) * difference - only_a - only_b
    c = -only_b * difference * (1.0 - difference)
    share_b = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    return max(0.0, count * (2.0 * share_b + difference * (1.0 - difference)))
