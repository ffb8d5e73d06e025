"""The proposals of the Square attack for Linf."""

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._pool import Jobs, State
from robust_attacks._square_change import Change, Write
from robust_attacks._square_deck import Deck, signs
from robust_attacks._square_windows import Schedule, Windows

_BLOCKS = 3  # of four words per proposal: row, column, signs
_ENTRIES = 128  # of windows that are looked at at once in search of a proposal that changes something
_MOST_AHEAD = 4


class Squares:
    """Windows of one colour per channel: every pixel goes to one of the two faces of its ball, cut by the box.

    The start puts every pixel on a face, and a step of `2 eps` up or down, clamped to ball and box, ends on a face from
    wherever it starts. So a proposal is a choice of a face per channel, and no rounding creeps in.
    """

    def __init__(self, schedule: Schedule, jobs: Jobs, seed: int) -> None:
        self._shape = jobs.images.shape[1:]
        self._schedule = schedule
        self._windows = Windows(schedule.sides(*self._shape[1:]), self._shape, jobs.images.device)
        self._deck = Deck(seed, 4 * _BLOCKS, self._expand)
        self._most = 0  # proposals that a job has made, at most

    def start(self, jobs: Jobs) -> State:
        """Stripes of one pixel's width from top to bottom: a face per image, channel and column."""
        images = jobs.images.contiguous()
        channels, _, width = self._shape
        lower = jobs.threat.projector(images)(torch.full_like(images, -1))
        upper = jobs.threat.projector(images)(torch.full_like(images, 2))
        up = jobs.random.signs("square/start", (channels, 1, width)) > 0
        state = {
            "points": torch.where(up, upper, lower),
            "faces": torch.cat((lower.flatten(1), upper.flatten(1)), dim=1),
        }
        return state | self._deck.start(jobs.random)

    def propose(self, state: State, wanted: Tensor | None, least: int, most: int) -> Change:  # noqa: ARG002
        """Write the next proposal of every job that changes a pixel into its points; others stay as they are.

        Proposals that would change nothing are passed over and count as made. Where the host must not look, so are at
        most four of them; a job that has found no other by then keeps its points for one query.
        """
        size = self._windows.size(self._schedule.phase(least))
        ahead = min(max(_ENTRIES // (size * self._shape[0]), 1), _MOST_AHEAD)
        write, real = self._find(state, size, ahead, self._may_end(state, ahead))
        if wanted is not None:
            real = real & wanted
            state["used"] *= wanted  # the others have just started, and had used none
        while _host.can_look(real) and not bool(real.all()):
            ending = self._may_end(state, ahead)
            idle = ~real if wanted is None else wanted & ~real
            if ending:
                idle &= self._deck.made(state) < self._schedule.queries
            rows = idle.nonzero()[:, 0]
            if not len(rows):
                break
            self._deck.deal(state, ahead)
            some = {name: state[name].index_select(0, rows) for name in ("points", "faces", "deck", "dealt", "used")}
            later, found = self._find(some, size, ahead, ending)
            state["used"][rows], real[rows] = some["used"], found
            write.replace(rows, later)
        if self._may_end(state, 0):
            state["over"] = self._deck.made(state) >= self._schedule.queries
        else:
            state.pop("over", None)
        change = Change((write,), real)
        change.apply(state["points"], real if wanted is not None or "over" in state else None)
        return change

    def settle(self, state: State, accepted: Tensor) -> None:
        """Nothing: the points are all there is to know."""

    def _find(self, state: State, size: int, ahead: int, ending: bool) -> tuple[Write, Tensor]:
        """Look at the next proposals of all jobs: the first that changes something, and who has found one."""
        left = self._schedule.queries - self._deck.made(state) if ending else None
        deck, count = self._deck.next(state, ahead), len(state["points"])
        entries = self._windows.entries(deck[:, 1], size).add_(deck[:, :1, None])
        new = state["faces"].gather(1, (entries + deck[:, 2:, None]).view(count, -1))
        places = entries.view(count, -1)
        old = state["points"].view(count, -1).gather(1, places)
        changes = (new != old).view(count, ahead, -1).sum(dim=2) > 0
        if left is not None:
            changes &= torch.arange(ahead, device=left.device) < left[:, None]
        self._most += ahead
        if ahead == 1:
            self._deck.spend(state, 1)
            return Write(places, old, new), changes[:, 0]
        chosen = changes.byte().argmax(dim=1)
        rows = chosen + torch.arange(0, count * ahead, ahead, device=chosen.device)
        places, old, new = (part.view(count * ahead, -1).index_select(0, rows) for part in (places, old, new))
        real = changes.view(-1).index_select(0, rows)
        self._deck.spend(state, torch.where(real, chosen + 1, ahead))
        return Write(places, old, new), real

    def _may_end(self, state: State, ahead: int) -> bool:
        """Whether a job may come to the end of its proposals when so many are looked at."""
        if self._most + ahead >= self._schedule.queries and _host.can_look(state["used"]):
            self._most = int(self._deck.made(state).max())
        return self._most + ahead >= self._schedule.queries

    def _expand(self, words: Tensor, proposals: Tensor) -> Tensor:
        phases = self._schedule.phases(proposals)
        corners = self._windows.corners(phases, words[..., :8])
        faces = signs(words[..., 8:], self._shape[0]) * self._shape.numel()
        return torch.cat((corners[..., None], phases[..., None], faces), dim=2)
