"""What the proposals of the Square attack for L2 and L1 share: two windows each, of which one gives to the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._pool import Jobs, State
from robust_attacks._square_bumps import bump
from robust_attacks._square_deck import Deck, signs
from robust_attacks._square_windows import Schedule, Windows

_BLOCKS = 6  # of four words per proposal: row and column of two windows, signs, orientation
_LEAST_SIDE = 3


@dataclass(frozen=True)
class Pair:
    """Two windows per job, their entries in the order (channel, pixel).

    Args:
        second: flat indices of the window that is emptied, int64 (n, C L).
        first: flat indices of the window that gets a new pattern, int64 (n, C L).
        pattern: bump of the first window with its sign per channel, float64 (n, C, L).
        shares: 1 for the L entries of a window, 0 for those left over, float64 (n, 1, L); None if none are left over.
    """

    second: Tensor
    first: Tensor
    pattern: Tensor
    shares: Tensor | None


class Pairs:
    """The windows of the proposals for one size of images.

    Args:
        norm: 2 or 1.
        schedule: of the windows.
        jobs: some jobs, for the size of their images.
        seed: of the images' random streams.
    """

    def __init__(self, norm: int, schedule: Schedule, jobs: Jobs, seed: int) -> None:
        self._channels, height, width = jobs.images.shape[1:]
        device = jobs.images.device
        self._schedule = schedule
        sides = schedule.sides(height, width, _LEAST_SIDE, odd=True)
        self._windows = Windows(sides, jobs.images.shape[1:], device)
        bumps = {side: bump(side, norm).to(device) for side in set(sides)}
        upright, lying = (
            self._windows.tabulate([bumps[side].T if turned else bumps[side] for side in sides])
            for turned in (False, True)
        )
        patterns = torch.stack((upright, lying), dim=1).flatten(0, 1)  # (phases * 2, pixels)
        self._patterns = {side**2: patterns[:, : side**2].contiguous() for side in sides}
        self._deck = Deck(seed, 4 * _BLOCKS, self._expand)

    def start(self, jobs: Jobs) -> State:
        """What is to be remembered of jobs that start."""
        return self._deck.start(jobs.random)

    def next(self, state: State, wanted: Tensor | None, least: int, most: int) -> Pair:
        """The windows of the next proposal of every job; counts it as made for the wanted ones, see `Proposals`."""
        phase, last = self._schedule.phase(least), self._schedule.phase(most)
        size = self._windows.size(phase)
        deck = self._deck.next(state, 1)
        self._deck.spend(state, 1 if wanted is None else wanted.long())
        phases = phase if phase == last else deck[:, 2]
        entries, count = self._windows.entries(phases, size), len(deck)
        patterns = self._patterns[size].index_select(0, deck[:, 3])
        return Pair(
            second=(entries + deck[:, :1, None]).view(count, -1),
            first=(entries + deck[:, 1:2, None]).view(count, -1),
            pattern=patterns[:, None] * deck[:, 4:, None],
            shares=None if isinstance(phases, int) else self._windows.shares(phases, size)[:, None],
        )

    def _expand(self, words: Tensor, proposals: Tensor) -> Tensor:
        phases = self._schedule.phases(proposals)
        first, second = (self._windows.corners(phases, words[..., at : at + 8]) for at in (0, 8))
        pattern = 2 * phases + (words[..., 20] >> 31)
        kept = torch.stack((second, first, phases, pattern), dim=2)
        return torch.cat((kept, 2 * signs(words[..., 16:20], self._channels) - 1), dim=2)


def total(values: Tensor) -> Tensor:
    """The sum over the last dimension, which is kept.

    Added up from left to right, so that zeros at the end, of which there are more the larger the windows of other jobs
    are, do not change how it is rounded. (A GPU adds in blocks; there the last bit of a float64 may differ.)
    """
    return values.cumsum(dim=-1)[..., -1:]


def moved(images: Tensor, origin: Tensor, offsets: Tensor) -> Tensor:
    """The images moved by offsets and clipped to the box, in their dtype and rounded towards where they were.

    Args:
        images: (n, m), as they were.
        origin: the same in float64.
        offsets: float64 (n, m).
    """
    points = (origin + offsets).clamp_(0, 1).to(images.dtype)
    beyond = (points - origin).abs_() > offsets.abs()
    return torch.where(beyond, torch.nextafter(points, images), points)


def radii(jobs: Jobs) -> Tensor:
    """The radius of every job, float64 (n,)."""
    eps = torch.as_tensor(jobs.threat.radii(jobs.images), dtype=torch.float64, device=jobs.images.device)
    return eps.flatten().expand(len(jobs.images)).clone()
