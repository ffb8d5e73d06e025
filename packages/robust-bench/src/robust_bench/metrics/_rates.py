"""Rates per corruption or perturbation: checked, averaged over severities, laid beside those of a baseline."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

Rates = Mapping[str, float | Sequence[float]]
"""By name: the mean over the severities, or one value per severity."""


def averages(rates: Rates, names: Collection[str], *, called: str, source: str, high: float = 1.0) -> dict[str, float]:
    """Give the mean over severities for each of `names`, in their order.

    Args:
        rates: exactly these names.
        names: what the mean is over.
        called: the argument's name in messages, e.g. "errors".
        source: where the names come from, in messages, e.g. "the baseline".
        high: the largest possible value.

    Raises:
        TypeError: if `rates` is no mapping of numbers.
        ValueError: if a name is missing or unknown, a value is NaN or outside [0, high], or the numbers of severities
            differ.
    """
    _check_names(rates, names, called, source)
    values = _values({called: rates}, names, high)
    return {name: values[called, name] for name in names}


def beside(given: Rates, baseline: Rates, *, called: str, high: float = 1.0) -> dict[str, tuple[float, float]]:
    """Pair the means over severities of `given` and of the baseline, in the baseline's order.

    Raises:
        TypeError: if one of them is no mapping of numbers.
        ValueError: as in `averages`, also where the two have different numbers of severities.
    """
    _check_names(baseline, baseline, "baseline", "the baseline")
    if not baseline:
        raise ValueError("the baseline is empty: give one rate for every name")
    _check_names(given, baseline, called, "the baseline")
    values = _values({"baseline": baseline, called: given}, baseline, high)
    return {name: (values[called, name], values["baseline", name]) for name in baseline}


def ratio(value: float, baseline: float, name: str) -> float:
    """Divide by the baseline.

    Raises:
        ValueError: if the baseline is 0.
    """
    if baseline == 0.0:
        raise ValueError(f"baseline[{name!r}] is 0, and nothing can be divided by it: give a baseline that fails there")
    return value / baseline


def check_rate(value: Any, called: str, high: float = 1.0) -> float:
    """Refuse anything but a number in [0, high].

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is NaN or out of range.
    """
    kind = f"{called} must be a number, got {type(value).__name__}: {value!r}"
    if isinstance(value, str):
        raise TypeError(kind)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(kind) from error
    if math.isnan(number):
        raise ValueError(f"{called} is NaN: a mean over no images? Measure it, it cannot be left out of the score")
    if not 0.0 <= number <= high:
        unit = "a fraction in [0, 1]" if high == 1.0 else f"in [0, {high:g}]"
        hint = ": divide per cent by 100" if high == 1.0 and 1.0 < number <= 100.0 else ""
        raise ValueError(f"{called} must be {unit}, got {number:g}{hint}")
    return number


def _check_names(rates: object, names: Collection[str], called: str, source: str) -> None:
    if not isinstance(rates, Mapping):
        raise TypeError(f"{called} must map names to rates, e.g. {{'fog': 0.457}}, got {type(rates).__name__}")
    missing = [name for name in names if name not in rates]
    extra = [str(name) for name in rates if name not in names]
    found = []
    if missing:
        found.append(f"lacks {', '.join(missing)}")
    if extra:
        found.append(f"has {', '.join(extra)}, unknown to {source}")
    if found:
        advice = "measure what is missing" if missing else "leave out what is not part of it"
        raise ValueError(
            f"{called} {' and '.join(found)}: the score is a mean over exactly the {len(names)} names of {source}, "
            f"so {advice}"
        )


def _values(groups: Mapping[str, Rates], names: Collection[str], high: float) -> dict[tuple[str, str], float]:
    means: dict[tuple[str, str], float] = {}
    counts: dict[str, int] = {}
    for called, rates in groups.items():
        for name in names:
            where = f"{called}[{name!r}]"
            raw: Any = rates[name]
            listed = raw.tolist() if hasattr(raw, "tolist") else raw  # tensors and arrays
            if isinstance(listed, Sequence) and not isinstance(listed, str):
                if not listed:
                    raise ValueError(f"{where} is empty: give one rate per severity, or their mean")
                counts[where] = len(listed)
                means[called, name] = fmean(
                    check_rate(value, f"{where}[{index}]", high) for index, value in enumerate(listed)
                )
            else:
                means[called, name] = check_rate(listed, where, high)
    if len(set(counts.values())) > 1:
        usual = Counter(counts.values()).most_common(1)[0][0]
        like = next(where for where, count in counts.items() if count == usual)
        odd = next(where for where, count in counts.items() if count != usual)
        raise ValueError(
            f"{odd} has {counts[odd]} values, but {like} has {usual}: give one rate per severity, the same severities "
            "everywhere"
        )
    return means
