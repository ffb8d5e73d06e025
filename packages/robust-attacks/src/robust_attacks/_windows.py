"""Axis-parallel windows in an image: where a rectangular patch may lie."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from robust_attacks._settings import check_count
from robust_attacks.random import ImageRandom

Size = int | tuple[int, int] | None
"""Height and width in pixels, one number for both, or None for a square of 5 % of the image."""


@dataclass(frozen=True)
class Window:
    """A window of `height` x `width` pixels in images of `rows` x `columns`."""

    height: int
    width: int
    rows: int
    columns: int

    def check_place(self, attack: str, place: tuple[int, int]) -> None:
        """Refuse an upper left corner from which the window leaves the image.

        Raises:
            ValueError: if it does.
        """
        if place[0] > self.rows - self.height or place[1] > self.columns - self.width:
            raise ValueError(
                f"{attack}: a patch of {self.height} x {self.width} pixels at place {place} leaves images of "
                f"{self.rows} x {self.columns}: row and column may be at most "
                f"{self.rows - self.height} and {self.columns - self.width}"
            )

    def mask(self, corners: Tensor) -> Tensor:
        """The pixels of the windows with the upper left corners (N, 2): bool (N, 1, H, W)."""
        down = torch.arange(self.rows, device=corners.device) - corners[:, :1]
        right = torch.arange(self.columns, device=corners.device) - corners[:, 1:]
        inside = ((down >= 0) & (down < self.height))[:, :, None] & ((right >= 0) & (right < self.width))[:, None, :]
        return inside[:, None]

    def random_places(self, use: str, random: ImageRandom, count: int) -> Tensor:
        """Uniform corners, int64 (N, count, 2). Draws: `use` with the run as restart, row and column."""
        down, right = self.rows - self.height + 1, self.columns - self.width + 1
        corners = [
            torch.cat([random.integers(use, down, 1, 0, run), random.integers(use, right, 1, 1, run)], dim=1)
            for run in range(count)
        ]
        return torch.stack(corners, dim=1)

    def best_places(self, values: Tensor, count: int) -> Tensor:
        """The corners of the windows with the largest sums of `values` (N, C, H, W) >= 0, int64 (N, count, 2).

        Candidates lie on a grid with strides of a quarter of the window, at least 1, that ends at the far edges. Ties
        go to the first in reading order; if there are fewer candidates than asked for, they come again from the best.
        """
        table = values.sum(dim=1, dtype=torch.float64).cumsum(dim=1).cumsum(dim=2)
        table = torch.nn.functional.pad(table, (1, 0, 1, 0))
        tops, lefts = (
            torch.tensor([*range(0, most, max(1, side // 4)), most], device=values.device)  # `most` once, at the end
            for side, most in ((self.height, self.rows - self.height), (self.width, self.columns - self.width))
        )
        band = table[:, tops + self.height] - table[:, tops]
        sums = (band[:, :, lefts + self.width] - band[:, :, lefts]).flatten(1)
        order = sums.sort(dim=1, descending=True, stable=True).indices
        best = order[:, torch.arange(count, device=values.device) % order.shape[1]]
        return torch.stack((tops[best // len(lefts)], lefts[best % len(lefts)]), dim=2)


def window_of(attack: str, images: Tensor, size: Size) -> Window:
    """The window of a size in images (N, C, H, W).

    Raises:
        ValueError: if it is larger than the images.
    """
    rows, columns = images.shape[2:]
    if size is None:
        side = max(1, round(math.sqrt(0.05 * rows * columns)))
        height, width = min(side, rows), min(side, columns)
    else:
        height, width = (size, size) if isinstance(size, int) else size
    if height > rows or width > columns:
        raise ValueError(
            f"{attack}: a patch of {height} x {width} pixels does not fit into images of {rows} x {columns}: "
            "choose a smaller size"
        )
    return Window(height, width, rows, columns)


def check_size(attack: str, size: Any) -> None:
    """Refuse all but a whole number, a pair of them, or None.

    Raises:
        TypeError: if it is something else.
        ValueError: if a number is below 1.
    """
    if size is None:
        return
    if isinstance(size, tuple) and len(size) == 2:
        check_count(attack, "height of size", size[0])
        check_count(attack, "width of size", size[1])
    elif isinstance(size, tuple | list):
        raise TypeError(f"{attack}: size must be one int, a tuple (height, width) or None, got {size!r}")
    else:
        check_count(attack, "size", size)


def check_place(attack: str, place: Any) -> None:
    """Refuse all but `"searched"`, `"random"` and a pair of whole numbers from 0.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(place, str) and place in ("searched", "random"):
        return
    pair = isinstance(place, tuple) and len(place) == 2
    if not pair or any(isinstance(n, bool) or not isinstance(n, Integral) or n < 0 for n in place):
        raise ValueError(
            f'{attack}: place must be "searched", "random" or the (row, column) of the upper left pixel, got {place!r}'
        )
