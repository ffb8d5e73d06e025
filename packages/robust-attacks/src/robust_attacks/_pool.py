"""Many runs of many images side by side in one batch that stays full."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Protocol

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._ledger import Ledger
from robust_attacks._passes import Passes
from robust_attacks._verify import Judge
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat

State = dict[str, Tensor]
"""What the jobs of a batch remember: every tensor has one row per job."""

_LOOKS_BETWEEN_CHECKS = 8  # on devices where asking for a result makes the host wait


@dataclass(frozen=True)
class Jobs:
    """Runs that are about to start, all with the same number.

    Args:
        images: clean, (n, C, H, W) in [0, 1].
        labels: true classes, or targets for a targeted loss, (n,).
        logits: of the clean images, (n, K).
        random: the streams of the n images.
        threat: for the n images.
        run: which run of its image each of them is, 0 .. `Search.runs` - 1.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    random: ImageRandom
    threat: Threat
    run: int


@dataclass(frozen=True)
class Given:
    """All images of a call (N, C, H, W) and what belongs to them; jobs are made of some of them, on `device`.

    Wins must stay inside `allowed`; None means the threat itself.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    random: ImageRandom
    threat: Threat
    device: torch.device
    allowed: Threat | None = None

    def jobs(self, rows: Tensor, run: int = 0) -> Jobs:
        """The jobs of some images, chosen by int64 indices on the CPU."""
        here = rows.to(self.images.device)
        images = self.images[here].to(self.device)
        return Jobs(
            images=images,
            labels=self.labels[here].to(self.device),
            logits=self.logits[here].to(self.device),
            random=self.random[here].of(images),
            threat=self.threat.select(rows),
            run=run,
        )


class Search(Protocol):
    """One attack, told as what a batch of independent jobs does between two looks at the model.

    Jobs of different ages stand side by side, so every rule works row by row, from `state["age"]`: the number of looks
    that a job has had. Neither `look` nor `move` may make the host wait for the device.
    """

    runs: int
    """Runs an image gets at most: restarts or targets."""
    length: int
    """Looks after which a job is exhausted."""

    def start(self, jobs: Jobs) -> State:
        """The first state of some jobs, of tensors of its own; `points` are what the model is shown first."""
        ...

    def look(self, passes: Passes, state: State) -> Tensor:
        """Evaluate every job once: which of `state["points"]` win now, bool (n,).

        Jobs may be exhausted before their time: where `state["over"]` is there after a look, bool (n,), it tells which.
        """
        ...

    def move(self, state: State) -> None:
        """Bring every job to its next points; jobs that are about to leave may be moved as well."""
        ...

    def best(self, state: State) -> tuple[Tensor, Tensor]:
        """What exhausted jobs hand back: points inside the threat, and a score (n,); -inf means the clean image."""
        ...


def hunt(
    search: Search,
    passes: Passes,
    judge: Judge,
    given: Given,
    ledger: Ledger,
    rows: Tensor,
    batch_size: int,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Make every run of some images until it wins, is exhausted, or an earlier run of its image has won.

    The result is as if the runs of each image were made one after another up to the first win, whatever the batch size.
    The queue is sorted by run, so that few runs start whose image an earlier one breaks. A win counts once it is
    confirmed; otherwise its run goes on.

    Args:
        search: the attack.
        passes: the model.
        judge: confirms wins.
        given: the images of the call.
        ledger: filled in; the runs that it knows as finished are not made again.
        rows: which images to attack, int64 on the CPU.
        batch_size: how many jobs go on side by side at most.
        tell: called after every check, when the ledger is up to date.
    """
    waiting = (
        (run, row)
        for run in range(search.runs)
        for row in rows.tolist()
        if not ledger.finished[row, run] and run < ledger.winner[row]
    )
    batch = _Batch(search, given, list(islice(waiting, batch_size)))
    while batch.jobs:
        # The points get no name here, which would keep their memory.
        news = _record_wins(batch, judge, given, ledger, *batch.advance(passes))
        leaving = _record_ends(batch, search, ledger) if news or batch.left == 0 else []
        if len(leaving) < len(batch.jobs):
            search.move(batch.state)
        if leaving:
            batch.replace(leaving, list(islice(waiting, len(leaving))))
        tell()


class _Batch:
    """The jobs that are going on: for each (run, row) when it started, and its row of every tensor of the state."""

    def __init__(self, search: Search, given: Given, jobs: list[tuple[int, int]]) -> None:
        self._search = search
        self._given = given
        self._looks = 0  # at this batch in all
        self.jobs = jobs
        self.births = [0] * len(jobs)
        self._first_birth = 0
        self.state = self._start(jobs) if jobs else {}

    @property
    def left(self) -> int:
        """Looks until the oldest job is exhausted."""
        return self._search.length - self._looks + self._first_birth

    def exhausted(self, place: int) -> bool:
        """Whether a job has had all its looks."""
        return self._looks - self.births[place] >= self._search.length

    def advance(self, passes: Passes) -> tuple[Tensor, ...]:
        """Look, several times where checks are dear: which jobs have won, bool (n,), and the points of their wins.

        Of several looks these are the points of the first win and those of the last: the first lies nearest to the
        boundary, and may not stand a second look.
        """
        looks = 1 if _host.can_look(self.state["age"]) else min(_LOOKS_BETWEEN_CHECKS, self.left)
        won = self._look(passes)
        points: tuple[Tensor, ...] = (self.state["points"],)
        if looks > 1:
            first = last = points[0].clone()
            for _ in range(looks - 1):
                self._search.move(self.state)
                now = self._look(passes)
                first = torch.where((now & ~won)[:, None, None, None], self.state["points"], first)
                last = torch.where(now[:, None, None, None], self.state["points"], last)
                won = won | now
            points = (first, last)
        self._looks += looks
        if "over" in self.state:
            for place in self.state["over"].nonzero()[:, 0].tolist():
                self.births[place] = self._first_birth = self._looks - self._search.length
        return won, *points

    def replace(self, leaving: list[int], jobs: list[tuple[int, int]]) -> None:
        """Put new jobs in the places of leaving ones; close the gaps that remain with the last jobs."""
        if jobs:
            places = leaving[: len(jobs)]
            index = torch.tensor(places, device=self._given.device)
            for name, fresh in self._start(jobs).items():
                self.state[name][index] = fresh
            for place, job in zip(places, jobs, strict=True):
                self.jobs[place], self.births[place] = job, self._looks
        gone = set(leaving[len(jobs) :])
        if gone:
            self._close(gone)
        self._first_birth = min(self.births, default=0)

    def _close(self, gone: set[int]) -> None:
        size = len(self.jobs) - len(gone)
        holes = sorted(place for place in gone if place < size)
        movers = [place for place in range(size, len(self.jobs)) if place not in gone]
        to, source = (torch.tensor(places, device=self._given.device) for places in (holes, movers))
        for name, tensor in self.state.items():
            if holes:
                tensor[to] = tensor[source]
            self.state[name] = tensor[:size]
        for hole, mover in zip(holes, movers, strict=True):
            self.jobs[hole], self.births[hole] = self.jobs[mover], self.births[mover]
        del self.jobs[size:], self.births[size:]

    def _look(self, passes: Passes) -> Tensor:
        won = self._search.look(passes, self.state)
        self.state["age"] += 1
        if passes.finite is not None:
            self.state["finite"] &= passes.finite
        return won

    def _start(self, jobs: list[tuple[int, int]]) -> State:
        parts = []
        for run, group in groupby(jobs, key=itemgetter(0)):
            some = self._given.jobs(torch.tensor([row for _, row in group], device="cpu"), run)
            parts.append(self._search.start(some))
        state = {
            name: torch.cat([part[name] for part in parts]) if len(parts) > 1 else parts[0][name] for name in parts[0]
        }
        device = self._given.device
        state["age"] = torch.zeros(len(jobs), dtype=torch.int64, device=device)
        state["finite"] = torch.ones(len(jobs), dtype=torch.bool, device=device)
        return state


def _record_wins(batch: _Batch, judge: Judge, given: Given, ledger: Ledger, won: Tensor, *tries: Tensor) -> bool:
    """Write down the wins that a second look confirms, at the points of one of the tries; whether there was any."""
    places = won.nonzero()[:, 0]
    news = False
    for points in tries:
        if not len(places):
            break
        jobs = [batch.jobs[place] for place in places.tolist()]
        rows = torch.tensor([row for _, row in jobs], device="cpu")
        of, allowed = given.jobs(rows), (given.allowed or given.threat).select(rows)
        points, confirmed = judge.confirm(allowed, of.images, points[places], of.labels)
        points = points.to(ledger.adversarial.device)
        for (run, row), point, sure in zip(jobs, points, confirmed.tolist(), strict=True):
            if sure:
                ledger.record_win(row, run, point)
        news |= bool(confirmed.any())
        places = places[~confirmed]
    ledger.flips += len(places)
    return news


def _record_ends(batch: _Batch, search: Search, ledger: Ledger) -> list[int]:
    """Write down which jobs are over and what the exhausted ones leave behind; the places of all of them."""
    winner = ledger.winner.tolist()
    leaving = [place for place, (run, row) in enumerate(batch.jobs) if winner[row] <= run or batch.exhausted(place)]
    if not leaving:
        return leaving
    index = torch.tensor(leaving, device=batch.state["age"].device)
    finite = batch.state["finite"][index].tolist()
    for place, sound in zip(leaving, finite, strict=True):
        run, row = batch.jobs[place]
        ledger.finite[row] &= sound
        ledger.finished[row, run] = True  # last: an interruption may come between any two lines
    exhausted = [place for place in leaving if winner[batch.jobs[place][1]] > batch.jobs[place][0]]
    if exhausted:
        index = torch.tensor(exhausted, device=index.device)
        points, scores = search.best({name: tensor[index] for name, tensor in batch.state.items()})
        points = points.to(ledger.adversarial.device)
        for place, point, score in zip(exhausted, points, scores.tolist(), strict=True):
            run, row = batch.jobs[place]
            ledger.record_best(row, run, point, score)
    return leaving
