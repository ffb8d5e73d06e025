"""Rows that belong to one line or one table, and words for what tells two of those apart."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_bench.result import Row

SEVERITIES = (1, 2, 3, 4, 5)
_MISSING = object()
_FOUND = ("interval", "details")  # what was found rather than set


@dataclass(frozen=True, kw_only=True)
class Family:
    """Rows whose settings differ in their size only.

    Args:
        name: what the rows have in common, for readers.
        differs: what tells them from other families of that name, e.g. "step_size 0.01"; empty if there are none.
        cells: for every result, its rows by their size.
    """

    name: str
    differs: str
    cells: tuple[Mapping[Any, "Row"], ...]

    @property
    def title(self) -> str:
        """Give the name, with what differs."""
        return f"{self.name} ({self.differs})" if self.differs else self.name


def families(
    rows: Sequence[Sequence["Row"]], *, name: Callable[["Row"], str], size: str | None = None
) -> tuple[Family, ...]:
    """Put rows together that have the same name and the same settings but for their size.

    Step sizes that are the same share of eps count as the same, so that they do not split a sweep over eps; so do
    those that are the same number. No row is lost: one that is there twice gets a family of its own.

    Args:
        rows: for every result, its rows.
        name: names a row for readers.
        size: the setting that differs inside a family, "eps" or "severity"; None puts only equal settings together.
    """
    scaled = _scaled([row for mine in rows for row in mine]) if size == "eps" else {}
    found: dict[tuple[str, str], tuple[dict[str, Any], list[dict[Hashable, Row]]]] = {}
    for position, mine in enumerate(rows):
        for row in mine:
            settings = {key: value for key, value in row.settings.items() if key != size and key not in _FOUND}
            if id(row) in scaled:
                settings["step_size"] = scaled[id(row)]
            at = row.settings[size] if size is not None else None
            repeat = 1
            while True:
                key = (name(row), json.dumps(settings, sort_keys=True))
                cells = found.setdefault(key, (dict(settings), [{} for _ in rows]))[1]
                if at not in cells[position]:
                    break
                repeat += 1
                settings["repeat"] = repeat
            cells[position][at] = row
    return tuple(
        Family(
            name=called,
            differs=_differs(settings, [other for (theirs, _), (other, _) in found.items() if theirs == called]),
            cells=tuple(cells),
        )
        for (called, _), (settings, cells) in found.items()
    )


def is_corruption(row: "Row") -> bool:
    """Tell whether the row is a cell of the corruption table."""
    known = row.settings
    return (
        known.get("kind") == "corruption"
        and isinstance(known.get("corruption"), str)
        and type(known.get("severity")) is int
        and known["severity"] in SEVERITIES
    )


def is_sweep(row: "Row") -> bool:
    """Tell whether the row is a cell of a table over eps."""
    eps: Any = row.settings.get("eps")
    return row.settings.get("kind") == "attack" and type(eps) in (int, float) and 0 <= eps < 1e9


def _scaled(rows: Sequence["Row"]) -> dict[int, str]:
    """Find rows whose step size is the same share of several eps: its words, by the row's identity."""
    shares: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        step: Any = row.settings.get("step_size")
        eps = row.settings["eps"]
        if type(step) in (int, float) and 0 < step < 1e9 and eps > 0:
            rest = {key: value for key, value in row.settings.items() if key not in ("eps", "step_size")}
            shares.setdefault((json.dumps(rest, sort_keys=True), f"{step / eps:.6g} eps"), []).append(row)
    several = {key: mine for key, mine in shares.items() if len({row.settings["eps"] for row in mine}) > 1}
    return {id(row): share for (_, share), mine in several.items() for row in mine}


def _differs(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    keys = dict.fromkeys(key for other in others for key in other)
    odd = [key for key in keys if any(other.get(key, _MISSING) != settings.get(key, _MISSING) for other in others)]
    return ", ".join(_words(key, settings.get(key, _MISSING)) for key in odd if key != "repeat" or key in settings)


def _words(key: str, value: object) -> str:
    if value is _MISSING:
        return f"no {key}"
    if value is None:
        return f"{key} by default"
    return f"{key} {value}" if isinstance(value, str) else f"{key} {json.dumps(value, ensure_ascii=False)}"
