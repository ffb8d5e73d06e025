"""Settings that are one number in a range."""

import math
from numbers import Real
from typing import Any


def check_number(
    attack: str, name: str, value: Any, *, least: float = 0.0, most: float = math.inf, open_below: bool = False
) -> float:
    """Hand back a finite number of the range as a float.

    Args:
        attack: whose setting it is, for the message.
        name: of the setting.
        value: what was given.
        least: the lower end of the range.
        most: the upper end; infinity stands for any finite number.
        open_below: whether `least` itself is refused.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{attack}: {name} must be one number, got {value!r} ({type(value).__name__})")
    number = float(value)
    if not (least <= number <= most and number < math.inf) or (open_below and number == least):
        above = f"above {least:g}" if open_below else f"at least {least:g}"
        asked = f"finite and {above}" if most == math.inf else f"{above} and at most {most:g}"
        raise ValueError(f"{attack}: {name} must be {asked}, got {number:g}")
    return number
