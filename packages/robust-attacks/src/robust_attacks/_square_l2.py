"""The proposals of the Square attack for L2."""

import torch
from torch import Tensor

from robust_attacks._pool import Jobs, State
from robust_attacks._square_bumps import tiles
from robust_attacks._square_change import Change, Write
from robust_attacks._square_pairs import Pairs, moved, radii, total
from robust_attacks._square_windows import Schedule


class Bumps2:
    """The second window gives its length to the first, which gets a bump on top of what was there.

    All lengths are sums over the two windows: the squared length of the whole, `square`, is kept up to date by what
    they change. With it, the new perturbation has length eps before it is clipped, so nothing outside of the windows
    moves, and the division by its length in the paper is a division by 1.
    """

    def __init__(self, schedule: Schedule, jobs: Jobs, seed: int) -> None:
        self._pairs = Pairs(2, schedule, jobs, seed)

    def start(self, jobs: Jobs) -> State:
        """Tiles of bumps of length eps, clipped to the box."""
        images, eps = jobs.images.contiguous(), radii(jobs)
        offsets = tiles(images, jobs.random, 2).flatten(1)
        offsets *= eps[:, None] / total(offsets.square()).sqrt_().clamp_(min=1e-300)
        flat = images.flatten(1)
        points = moved(flat, flat.double(), offsets)
        square = total((points.double() - flat).square_())[:, 0]
        state = {
            "points": points.view_as(images),
            "images": images,
            "most": eps.square(),
            "square": square,
            "proposed": square.clone(),
        }
        return state | self._pairs.start(jobs)

    def propose(self, state: State, wanted: Tensor | None, least: int, most: int) -> Change:
        """Write the next proposals of the wanted jobs into their points."""
        pair = self._pairs.next(state, wanted, least, most)
        points, images = state["points"].flatten(1), state["images"].flatten(1)
        clean1, clean2 = images.gather(1, pair.first), images.gather(1, pair.second)
        old1, old2 = points.gather(1, pair.first), points.gather(1, pair.second)
        points.scatter_(1, pair.first, clean1)  # so that what the windows share counts once
        left2 = points.gather(1, pair.second)
        origin1 = clean1.double()
        offset1 = (old1 - origin1).view_as(pair.pattern)
        square1 = _squares(offset1, pair.shares)
        square = square1 + _squares((left2.double() - clean2).view_as(pair.pattern), pair.shares)
        new = offset1.div_(square1.sqrt().add_(1e-12)).add_(pair.pattern)
        free = (state["most"] - state["square"]).clamp_(min=0)[:, None, None] / new.shape[1]
        new *= ((free + square) / _squares(new, pair.shares).clamp_(min=1e-300)).sqrt_()
        moved1 = moved(clean1, origin1, new.view_as(clean1))
        gain = _squares((moved1 - origin1).view_as(new), pair.shares) - square
        state["proposed"] = state["square"] + total(gain[:, :, 0])[:, 0]
        change = Change((Write(pair.second, old2, clean2), Write(pair.first, old1, moved1)), wanted)
        change.apply(points, wanted)
        return change

    def settle(self, state: State, accepted: Tensor) -> None:
        """Remember the lengths of the accepted proposals."""
        state["square"] = torch.where(accepted, state["proposed"], state["square"])


def _squares(offsets: Tensor, shares: Tensor | None) -> Tensor:
    """Squared lengths per channel, (n, C, 1), of offsets (n, C, L)."""
    squares = offsets.square()
    return total(squares if shares is None else squares.mul_(shares))
