"""The random search of the Square attack, as a search of the pool."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from robust_attacks._passes import Passes
from robust_attacks._pool import Jobs, State
from robust_attacks._square_change import Change
from robust_attacks._square_windows import Schedule
from robust_attacks.losses import Loss, succeeded


class Proposals(Protocol):
    """Where a search starts and what it tries, for one threat and one size of images."""

    def start(self, jobs: Jobs) -> State:
        """The first points and what else proposals need to know of the jobs; all tensors are their own."""
        ...

    def propose(self, state: State, wanted: Tensor | None, least: int, most: int) -> Change:
        """Write the next proposals of jobs into their points.

        Args:
            state: of the jobs.
            wanted: which jobs may propose, bool (n,); None for all.
            least: no job has made fewer proposals, passed over ones not counted.
            most: no job has made more of them.
        """
        ...

    def settle(self, state: State, accepted: Tensor) -> None:
        """Take note of whose proposals are accepted, bool (n,); the others are undone."""
        ...


Make = Callable[[Schedule, Jobs, int], Proposals]


class RandomSearch:
    """Propose, evaluate, keep what raises the loss: one query for the start, then one for every proposal.

    A look evaluates the points and settles the matter at once, so that a job's points are its best ones whenever the
    pool takes it out. How young and how old jobs can be is counted on the host, for the size of the windows; so one
    search serves one batch of jobs.

    Args:
        make: the proposals for a threat, made from schedule, first jobs and seed.
        schedule: of the windows.
        loss: what to increase; it carries the rule of success.
        seed: of the images' random streams.
        patient: go on after a success, and win with the best points at the end: a randomised model that happens to
            err once may not err again.
    """

    runs = 1

    def __init__(self, make: Make, schedule: Schedule, loss: Loss, seed: int, patient: bool = False) -> None:
        self.length = schedule.queries + 1
        self._make = make
        self._schedule = schedule
        self._loss = loss
        self._seed = seed
        self._patient = patient
        self._proposals: Proposals | None = None
        self._looks = 0  # since jobs started last
        self._all_looks = 0  # since jobs started first

    def start(self, jobs: Jobs) -> State:
        """The start of some jobs."""
        if self._proposals is None:
            self._proposals = self._make(self._schedule, jobs, self._seed)
        self._looks = 0
        lowest = torch.full(jobs.labels.shape, -torch.inf, dtype=torch.float64, device=jobs.labels.device)
        state = self._proposals.start(jobs) | {"labels": jobs.labels, "loss": lowest}
        return state | {"succeeded": torch.zeros_like(jobs.labels).bool()} if self._patient else state

    def look(self, passes: Passes, state: State) -> Tensor:
        """Evaluate the next proposal of every job (at first the start) and keep it or take it back."""
        if self._proposals is None:
            raise RuntimeError("internal error: no job has started")
        wanted = None if self._looks else state["age"] > 0  # those that have just started show their start
        least, most = (min(max(looks - 1, 0), self._schedule.queries - 1) for looks in (self._looks, self._all_looks))
        change = self._proposals.propose(state, wanted, least, most)
        self._looks += 1
        self._all_looks += 1
        logits = passes.logits(state["points"])
        losses = self._loss(logits, state["labels"])
        won = succeeded(self._loss, logits, state["labels"])
        higher = losses > state["loss"]
        accepted = self._better(state, higher if passes.finite is None else higher & passes.finite, won)
        state["loss"] = torch.where(accepted, losses.double(), state["loss"])
        if change.real is not None:
            accepted &= change.real
        change.apply(state["points"], accepted)
        self._proposals.settle(state, accepted)
        return self._at_the_end(state) if self._patient else won

    def _better(self, state: State, higher: Tensor, won: Tensor) -> Tensor:
        """Whose proposals are accepted, bool (n,): successes, and higher losses; takes note of successes."""
        if not self._patient:
            return higher | won
        before = state["succeeded"]
        accepted = torch.where(before, higher & won, higher | won)  # no failure takes the place of a success
        state["succeeded"] = before | won
        return accepted

    def _at_the_end(self, state: State) -> Tensor:
        """Which jobs have made their last proposal and stand at points that succeed, bool (n,)."""
        last = state["age"] == self.length - 1
        return state["succeeded"] & (last | state["over"] if "over" in state else last)

    def move(self, state: State) -> None:
        """Nothing: `look` has settled what it proposed."""

    def best(self, state: State) -> tuple[Tensor, Tensor]:
        """The best points so far and their loss."""
        return state["points"], state["loss"]
