"""Accuracy under corruption as a map: severity by corruption."""

from collections.abc import Sequence
from dataclasses import dataclass

from robust_bench.families import SEVERITIES, families, is_corruption
from robust_bench.result import Row
from robust_bench.tables import ACCURACY

OTHER = "other"
CORRUPTION_GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
"""Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261, figure 1, in the order of its tables; "extra" for validation."""
_PLACES = {name: (group, place) for group, names in CORRUPTION_GROUPS.items() for place, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class HeatLine:
    """One corruption: a cell per severity, None where it was not measured, and their mean if all are there."""

    title: str
    cells: tuple[Row | None, ...]
    mean: float | None


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """The lines of each group of corruptions, with the severities as columns."""

    blocks: tuple[tuple[str, tuple[HeatLine, ...]], ...]
    severities: tuple[int, ...] = SEVERITIES


def is_cell(row: Row) -> bool:
    """Tell whether a row is a cell of the map."""
    return row.metric == ACCURACY and is_corruption(row)


def heat_map(rows: Sequence[Row]) -> HeatMap | None:
    """Draw the map of one model on one data set; None if no row is under a corruption.

    Args:
        rows: of one model; those that are no cell are passed over.
    """
    blocks: dict[str, list[tuple[int, HeatLine]]] = {group: [] for group in (*CORRUPTION_GROUPS, OTHER)}
    cells = [row for row in rows if is_cell(row)]
    for family in families([cells], name=lambda row: str(row.settings["corruption"]), size="severity"):
        mine = family.cells[0]
        group, place = _PLACES.get(family.name, (OTHER, 0))
        mean = sum(row.value for row in mine.values()) / len(mine) if len(mine) == len(SEVERITIES) else None
        title = family.title.replace("_", " ", family.name.count("_"))
        line = HeatLine(title=title, cells=tuple(mine.get(severity) for severity in SEVERITIES), mean=mean)
        blocks[group].append((place, line))
    filled = tuple(
        (group, tuple(line for _, line in sorted(lines, key=lambda each: each[0])))
        for group, lines in blocks.items()
        if lines
    )
    return HeatMap(blocks=filled) if filled else None
