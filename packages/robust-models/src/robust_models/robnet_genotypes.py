"""The genotypes of RobNets: which operation lies on each edge of each cell."""

import json
from collections.abc import Sequence
from typing import TypeAlias

EDGES = 14
CODES = ("00", "01", "10", "11")

LARGE = "33333131231113"
FREE = (
    "32332311233031 30121022013230 33311310202203 23211221230012 33102221210213 "
    "32333123021313 33322132122212 13331333131320 33333113210213 23103323133330 "
    "32300030120123 13133223231320 33221023312201 13331131133122 13333101223223 "
    "33033101203133 33133232222233 23133130330201 32333332303133 33113310020113"
)

Genotype: TypeAlias = str | Sequence[str | Sequence[str | int]]


def parse_genotype(genotype: Genotype, cells: int) -> list[tuple[int, ...]]:
    """Return one tuple of 14 digits per cell: 0 zero, 1 convolution, 2 identity, 3 both.

    Args:
        genotype: one entry per cell, or a single one that all cells share. An entry is 14 digits ("33333131231113"), or
            a list of 14 two-bit codes ("00" to "11") or digits. Also a string of entries in digits with spaces between
            them, or such lists as JSON.
        cells: number of cells of the network.

    Raises:
        ValueError: for an entry with another length or other codes, or another number of entries than 1 or `cells`.

    Examples:
        >>> parse_genotype("33333131231113", cells=2)[1]
        (3, 3, 3, 3, 3, 1, 3, 1, 2, 3, 1, 1, 1, 3)
    """
    if isinstance(genotype, str):
        genotype = json.loads(genotype) if genotype.lstrip().startswith("[") else genotype.split()
    parsed = [_parse_cell(entry, index) for index, entry in enumerate(genotype)]
    if len(parsed) not in (1, cells):
        raise ValueError(f"a genotype has one entry, or one for each of the {cells} cells, got {len(parsed)} entries")
    return parsed * cells if len(parsed) == 1 else parsed


def _parse_cell(entry: str | Sequence[str | int], index: int) -> tuple[int, ...]:
    found = [CODES.index(code) if code in CODES else code for code in entry]
    digits = tuple(int(digit) if str(digit) in ("0", "1", "2", "3") else -1 for digit in found)
    if len(digits) != EDGES or -1 in digits:
        raise ValueError(
            f"entry {index} of the genotype must be {EDGES} digits 0 to 3, or {EDGES} codes '00' to '11', got {entry!r}"
        )
    return digits
