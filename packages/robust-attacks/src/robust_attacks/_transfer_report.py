"""What a transfer evaluation found."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class TransferRow:
    """One attack of a transfer evaluation.

    Args:
        attack: its name, as "r = 0.04".
        settings: those of a `TransferAttack`, the mode for images that missed their targets among them; of another
            attack nothing.
        surrogate_success: share of all images that the surrogate takes for their targets (`TransferAttack`, images
            that it took so when clean included), or gets wrong (any other attack).
        accuracy: of every tested model, over all images, by its name.
    """

    attack: str
    settings: Mapping[str, Any]
    surrogate_success: float
    accuracy: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What `transfer` found; `print` shows a table, `to_json` and `from_json` lose nothing. Rates are fractions.

    Args:
        count: how many images there were.
        seed: of their random streams.
        surrogate_accuracy: of the surrogate on clean images.
        clean_accuracy: of every tested model on clean images, by its name.
        rows: one per attack, in order.
    """

    count: int
    seed: int
    surrogate_accuracy: float
    clean_accuracy: Mapping[str, float]
    rows: tuple[TransferRow, ...]

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps({"format": "robust-transfer/1", **asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report that `to_json` wrote.

        Raises:
            ValueError: if the text is no such report.
        """
        fields = json.loads(text)
        kind = fields.pop("format", None) if isinstance(fields, dict) else None
        if kind != "robust-transfer/1":
            raise ValueError(f"this is no transfer report: its format is {kind!r}, wanted is 'robust-transfer/1'")
        rows = tuple(TransferRow(**row) for row in fields.pop("rows"))
        return cls(rows=rows, **fields)

    def __str__(self) -> str:
        """A table in per cent: attacks down, models across."""
        names = list(self.clean_accuracy)
        table = [["attack", "surrogate success", *names]]
        table.append(["clean", "-", *(_percent(self.clean_accuracy[name]) for name in names)])
        table += [
            [row.attack, _percent(row.surrogate_success), *(_percent(row.accuracy[name]) for name in names)]
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        lines = [
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(line, widths, strict=True)) for line in table)
        ]
        modes = sorted({str(row.settings["unreached"]) for row in self.rows if "unreached" in row.settings})
        kept = f"; images that miss their targets: {', '.join(modes)}" if modes else ""
        title = (
            f"Transfer: accuracy in per cent on {self.count} images, seed {self.seed}; surrogate clean "
            f"{_percent(self.surrogate_accuracy)}{kept}"
        )
        return "\n".join((title, *lines))


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"
