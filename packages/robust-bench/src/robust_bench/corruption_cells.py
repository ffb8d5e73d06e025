"""The cells of a corrupted data set: a corruption at a severity."""

from collections.abc import Sequence
from typing import NamedTuple

from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS
from robust_bench.corruptions.presets import SEVERITIES

_GROUPS = {
    group: tuple(name for name in CORRUPTIONS if GROUPS[name] == group) for group in dict.fromkeys(GROUPS.values())
}
SETS = {
    "common": CORRUPTIONS,
    "extra": EXTRA_CORRUPTIONS,
    "all": CORRUPTIONS + EXTRA_CORRUPTIONS,
    **_GROUPS,
}
"""Words for several corruptions: the fifteen of the mean corruption error, the four extra ones, all, and groups of the
fifteen."""


class Cell(NamedTuple):
    """A corruption at a severity."""

    corruption: str
    severity: int


def chosen_corruptions(given: Sequence[str] | str) -> tuple[str, ...]:
    """Read names of corruptions and words for several, as a list or joined by commas; they come in published order.

    Raises:
        ValueError: if there are none, or one is unknown.

    Examples:
        >>> chosen_corruptions("fog,noise")
        ('gaussian_noise', 'shot_noise', 'impulse_noise', 'fog')
    """
    words = given.split(",") if isinstance(given, str) else given
    names = [word.strip() for word in words if word.strip()]
    if not names:
        raise ValueError("no corruptions are named: give names, or common for the fifteen")
    for name in names:
        if name not in (*SETS["all"], *SETS):
            raise ValueError(
                f"unknown corruption {name!r}: choose from {', '.join(SETS['all'])}, or several by one of the words "
                f"{', '.join(SETS)}"
            )
    wanted = {corruption for name in names for corruption in SETS.get(name, (name,))}
    return tuple(corruption for corruption in SETS["all"] if corruption in wanted)


def chosen_severities(given: Sequence[int] | int | str) -> tuple[int, ...]:
    """Read severities, as a list, one number, or joined by commas; they come in order.

    Raises:
        ValueError: if there are none, or one is not from 1 to 5.

    Examples:
        >>> chosen_severities("3,1"), chosen_severities(5)
        ((1, 3), (5,))
    """
    numbers = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else given
    words = [str(number).strip() for number in numbers]
    known = {str(severity): severity for severity in SEVERITIES}
    if not words or any(word not in known for word in words):
        raise ValueError(f"severities must be some of 1, 2, 3, 4, 5, as 1,3,5, got {given!r}")
    return tuple(severity for word, severity in known.items() if word in words)
