"""The windows of the Square attack: how large they are when, and which pixels lie in them."""

import bisect
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks.random import below

_LAST = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the last proposal of every phase but the last one
_SPAN = 10_000  # proposals that the phases were made for


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The fraction of the pixels that a window covers, halved again and again: phase k has `p_init / 2**k`.

    Args:
        queries: proposals in all.
        p_init: fraction of the pixels of the first windows.
        rescale: stretch or squeeze the phases, made for 10,000 proposals, to `queries`.
    """

    queries: int
    p_init: float
    rescale: bool

    def phase(self, proposal: int) -> int:
        """The phase of a proposal, counted from 0."""
        return bisect.bisect_left(_LAST, proposal * _SPAN // self.queries if self.rescale else proposal)

    def phases(self, proposals: Tensor) -> Tensor:
        """The phases of int64 proposals, of the same shape."""
        scaled = proposals * _SPAN // self.queries if self.rescale else proposals
        return torch.bucketize(scaled, _ends(proposals.device))

    def fraction(self, phase: int) -> float:
        """The fraction of the pixels that the windows of a phase cover."""
        return float(self.p_init / 2**phase)

    def sides(self, height: int, width: int, least: int = 1, odd: bool = False) -> tuple[int, ...]:
        """The sides of the windows of every phase, in pixels, largest first."""
        sides = []
        for phase in range(len(_LAST) + 1):
            side = max(round((self.fraction(phase) * height * width) ** 0.5), least)
            sides.append(min(side + (odd and side % 2 == 0), height, width))
        return tuple(sides)


@functools.lru_cache
def _ends(device: torch.device) -> Tensor:
    """The last proposals of the phases, brought to the device once, since the host waits for that."""
    return torch.tensor(_LAST, device=device)


class Windows:
    """The entries of windows of all phases, as tables, so that windows of different sides fit in one tensor.

    A window has as many pixels as the largest one of its batch. Those left over name its last pixel once more: what is
    written twice is the same, and sums leave the second out.

    Args:
        sides: of the windows of every phase, largest first.
        shape: of the images, (C, H, W).
        device: where the tables lie.
    """

    def __init__(self, sides: tuple[int, ...], shape: torch.Size, device: torch.device) -> None:
        channels, height, width = shape
        self._sides = sides
        self._rooms = [
            torch.tensor([max(length - side, 1) for side in sides], device=device) for length in (height, width)
        ]
        self._width = width
        pixels = torch.arange(sides[0] ** 2, device=device)
        side = torch.tensor(sides, device=device)[:, None]
        self._cells = torch.minimum(pixels, side**2 - 1)  # (phases, pixels): number of the pixel within its window
        offsets = self._cells // side * width + self._cells % side
        planes = torch.arange(channels, device=device)[:, None] * (height * width)
        shares = (pixels < side**2).double()
        sizes = {side**2 for side in sides}
        self._entries = {size: offsets[:, None, :size] + planes for size in sizes}  # (phases, C, pixels)
        self._shares = {size: shares[:, :size].contiguous() for size in sizes}

    def size(self, phase: int) -> int:
        """How many pixels a window of a phase has."""
        return self._sides[phase] ** 2

    def corners(self, phases: Tensor, words: Tensor) -> Tensor:
        """Upper left pixels, as flat indices like `phases`, of windows drawn from words (..., 8): row, then column."""
        rows, columns = (
            below(room[phases], words[..., at : at + 4]) for room, at in zip(self._rooms, (0, 4), strict=True)
        )
        return rows * self._width + columns

    def entries(self, phases: Tensor | int, size: int) -> Tensor:
        """Flat indices of the entries of windows at the upper left corner, (n, C, size), of one phase (C, size).

        Args:
            phases: int64 (n,), or the one that all are in.
            size: pixels of the largest window.
        """
        table = self._entries[size]
        return table[phases] if isinstance(phases, int) else table.index_select(0, phases)

    def shares(self, phases: Tensor, size: int) -> Tensor:
        """Float64 (n, size): 1 for the pixels of a window, 0 for those that are left over."""
        return self._shares[size].index_select(0, phases)

    def tabulate(self, patterns: list[Tensor]) -> Tensor:
        """One square pattern per phase as a table (phases, pixels) in the order of the pixels."""
        return torch.stack([pattern.flatten()[cells] for pattern, cells in zip(patterns, self._cells, strict=True)])
