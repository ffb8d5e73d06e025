"""Several tests at once: p values that count how many there were."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number, so that one false alarm among all of them is as rare as each alone would be.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979), after
    Bonferroni: the k-th smallest of m, k = 1..m, is multiplied by m - k + 1, and none becomes smaller than one before
    it. The tests need not be independent.

    Args:
        p_values: of the tests, each in [0, 1].

    Returns:
        The adjusted ones in the same order, at most 1.

    Raises:
        ValueError: if one is NaN or outside [0, 1].

    Examples:
        >>> holm([0.25, 0.125, 0.75])
        [0.5, 0.375, 0.75]
    """
    for value in p_values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"p values lie in [0, 1], got {value}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted
