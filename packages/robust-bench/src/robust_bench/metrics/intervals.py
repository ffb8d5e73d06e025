"""Confidence intervals of shares."""

from scipy.special import betaincinv


def clopper_pearson(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the exact confidence interval of a share, from `correct` successes among `count` trials.

    Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934). The bounds are quantiles of beta distributions, so the interval never leaves [0, 1] and
    covers the true share with at least the stated confidence, whatever the share is.

    Args:
        correct: number of successes, 0..count.
        count: number of trials, at least 1.
        confidence: the least probability of covering the true share, in (0, 1).

    Returns:
        (low, high), both fractions.

    Raises:
        ValueError: if the counts or the confidence are impossible.

    Examples:
        >>> low, high = clopper_pearson(0, 10)
        >>> (low, round(high, 4))
        (0.0, 0.3085)
    """
    if count < 1:
        raise ValueError(f"an interval needs at least one trial, got count={count}")
    if not 0 <= correct <= count:
        raise ValueError(f"correct must lie in 0..{count} (the count), got {correct}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, e.g. 0.95, got {confidence}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if correct == 0 else float(betaincinv(correct, count - correct + 1, tail))
    high = 1.0 if correct == count else float(betaincinv(correct + 1, count - correct, 1.0 - tail))
    return low, high
