"""What a proposal of the Square attack has written into the points, and how it was before."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Write:
    """Entries of the points that a proposal changes.

    Args:
        places: flat indices within each image, int64 (n, m).
        old: what was there before the proposal, (n, m).
        new: what it puts there, (n, m).
    """

    places: Tensor
    old: Tensor
    new: Tensor

    def replace(self, rows: Tensor, other: "Write") -> None:
        """Take over those of another one for some jobs, int64 (k,)."""
        self.places[rows], self.old[rows], self.new[rows] = other.places, other.old, other.new


@dataclass(frozen=True)
class Change:
    """A proposal of every job.

    Args:
        writes: in the order in which they are made: where their places meet, the last one counts.
        real: which jobs have made a proposal, bool (n,); None if all have.
    """

    writes: tuple[Write, ...]
    real: Tensor | None

    def apply(self, points: Tensor, chosen: Tensor | None) -> None:
        """Write the new into the points of the chosen jobs, bool (n,), and the old into the others; None for all."""
        flat = points.view(len(points), -1)
        for write in self.writes:
            new = write.new if chosen is None else torch.where(chosen[:, None], write.new, write.old)
            flat.scatter_(1, write.places, new)
