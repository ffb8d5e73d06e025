"""The random draws of the Square attack, made for many proposals at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks.random import ImageRandom

Expand = Callable[[Tensor, Tensor], Tensor]
"""Words (n, count, words) and proposals (n, count) to what is kept of them: int64 (n, count, kept)."""

_AHEAD = 64  # proposals that are drawn at once


class Deck:
    """Draws for the next proposals of every job: those from `dealt` on are in `deck` (n, 64, kept), `used` are made.

    Draws cost least when made for many proposals at once, but jobs use them up at different speeds. When the deck is
    dealt anew is decided on the host, from what a job can have used at most; where asking is cheap, from what was used.
    One deck serves one batch of jobs.

    Args:
        seed: of the images' random streams.
        words: how many words a proposal owns.
        expand: makes of words what is to be kept.
    """

    def __init__(self, seed: int, words: int, expand: Expand) -> None:
        self._seed = seed
        self._words = words
        self._expand = expand
        self._left = _AHEAD  # proposals that the job that has used most has left, at least
        self._tops = torch.empty(0, dtype=torch.int64)

    def start(self, random: ImageRandom) -> dict[str, Tensor]:
        """The first deck of jobs that start."""
        ids = random._known_ids()
        first = torch.zeros_like(ids)
        return {"ids": ids, "deck": self._draw(ids, first), "dealt": first, "used": first.clone()}

    def deal(self, state: dict[str, Tensor], count: int) -> None:
        """Make sure that every job has `count` proposals left."""
        if self._left < count and _host.can_look(state["used"]):
            self._left = _AHEAD - int(state["used"].max())
        if self._left < count:
            state["dealt"] = self.made(state)
            state["deck"] = self._draw(state["ids"], state["dealt"])
            state["used"] = torch.zeros_like(state["dealt"])
            self._left = _AHEAD

    def next(self, state: dict[str, Tensor], count: int) -> Tensor:
        """What was drawn for the next `count` proposals of every job, (n * count, kept)."""
        self.deal(state, count)
        self._left -= count
        deck, jobs = state["deck"], len(state["used"])
        if len(self._tops) < jobs:
            self._tops = torch.arange(0, _AHEAD * jobs, _AHEAD, device=deck.device)
        tops = state["used"] + self._tops[:jobs]
        if count > 1:
            tops = (tops[:, None] + torch.arange(count, device=deck.device)).flatten()
        return deck.view(jobs * _AHEAD, -1).index_select(0, tops)

    def spend(self, state: dict[str, Tensor], spent: Tensor | int) -> None:
        """Go on by so many proposals, int64 (n,) or a number, at most as many as were looked at."""
        state["used"] += spent

    def made(self, state: dict[str, Tensor]) -> Tensor:
        """How many proposals every job has made, int64 (n,)."""
        return state["dealt"] + state["used"]

    def _draw(self, ids: Tensor, first: Tensor) -> Tensor:
        random = ImageRandom._trusting(self._seed, ids)
        words = random.words("square/proposal", self._words * _AHEAD, start=self._words * first)
        proposals = first[:, None] + torch.arange(_AHEAD, device=first.device)
        return self._expand(words.reshape(len(ids), _AHEAD, self._words), proposals)


def signs(words: Tensor, channels: int) -> Tensor:
    """One bit per channel, int64 (..., channels), from the four words (..., 4) of a block: bits 31, 30, ... of each.

    Raises:
        ValueError: if there are more channels than bits.
    """
    if channels > 128:
        raise ValueError(f"Square has signs for at most 128 channels, got images of {channels}")
    number = torch.arange(channels, device=words.device)
    return words.index_select(-1, number // 32) >> (31 - number % 32) & 1
