"""The runs of APGD in the Linf and L2 balls, as searches of the pool."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._passes import Passes
from robust_attacks._pool import Jobs, State
from robust_attacks.losses import Loss, succeeded

_PIXELS = (1, 2, 3)
_MOMENTUM = 0.75
_LEAST_RISES = 0.75  # rho
_INWARDS = 1 - 2e-7  # float32 norms are good to about 1e-7

Objective = Callable[[Tensor, State], Tensor]
"""Logits (n, K) and the state of the jobs to losses (n,)."""


def checkpoints(steps: int) -> list[int]:
    """For each update 0 .. `steps` the length of the period that it ends, else 0: of 100 steps 22, 19, 16, 13, ..."""
    ends = [0] * (steps + 1)
    period, shrink, shortest = (max(percent * steps // 100, 1) for percent in (22, 3, 6))
    update = period
    while update <= steps:
        ends[update] = period
        period = max(period - shrink, shortest)
        update += period
    return ends


@dataclass(frozen=True)
class Aim:
    """What the runs of an attack increase, and when they have won.

    Args:
        losses: logits (n, K) and the state to losses (n,).
        rule: the loss whose rule of success counts, see `losses.succeeded`.
        runs: how many an image gets.
        prepare: what to remember of the jobs besides the points, as their target classes.
        random_run: the counters `(restart, target)` of a run's random numbers.
    """

    losses: Objective
    rule: Loss
    runs: int
    prepare: Callable[[Jobs], State]
    random_run: Callable[[int], tuple[int, int]]


def evaluate(aim: Aim, passes: Passes, state: State, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n, K), losses (n,) and gradients (n, C, H, W) at the points.

    The gradients of the last look, which nobody needs, are not computed where the host can see that it is the last for
    all. Those of the look before give up their memory first.
    """
    points, age = state["points"], state["age"]
    del state["gradient"]
    over = _host.can_look(age) and bool((age == length - 1).all())
    logits, losses, gradient = passes.gradient(points, lambda logits: aim.losses(logits, state), need_gradient=not over)
    return logits, losses.to(points.dtype), torch.zeros_like(points) if gradient is None else gradient


class Climb:
    """Ascent with momentum and a step that is halved when it no longer helps; arXiv:2003.01690, algorithm 1."""

    def __init__(self, aim: Aim, steps: int, use: str) -> None:
        self.runs = aim.runs
        self.length = steps + 1
        self._aim = aim
        self._use = use
        self._ends = torch.tensor(checkpoints(steps))

    def start(self, jobs: Jobs) -> State:
        images, count = jobs.images, len(jobs.images)
        radius = torch.as_tensor(jobs.threat.radii(images), dtype=torch.float64, device=images.device)
        radius = radius.reshape(-1, 1, 1, 1).expand(count, 1, 1, 1).to(images.dtype)
        restart, target = self._aim.random_run(jobs.run)
        state = {
            "labels": jobs.labels,
            "step": 2 * radius,
            "highest": torch.full((count,), -torch.inf, dtype=images.dtype, device=images.device),
            "last": torch.zeros(count, dtype=images.dtype, device=images.device),
            "rises": torch.zeros(count, dtype=torch.int64, device=images.device),
            "halved": torch.ones(count, dtype=torch.bool, device=images.device),
            "checked": torch.full((count,), -torch.inf, dtype=images.dtype, device=images.device),
        }
        state |= self._aim.prepare(jobs)
        if jobs.threat.name == "Linf":
            noise = 2 * jobs.random.uniform(self._use, images.shape[1:], restart=restart, target=target) - 1
            noise = noise / noise.abs().amax(dim=_PIXELS, keepdim=True).clamp(min=1e-12)
            project = jobs.threat.projector(images)
            state["lower"], state["upper"] = (project(torch.full_like(images, value)) for value in (-1, 2))
            points = project(images + radius * noise.to(images.dtype))
        else:
            noise = jobs.random.normal(self._use, images.shape[1:], restart=restart, target=target).to(images.dtype)
            state["origin"], state["radius"] = images.clone(), radius * _INWARDS
            points = self._shrunk(images + noise * (radius / _lengths(noise)), state)
        return state | {
            "points": points,
            "previous": points.clone(),
            "best": points.clone(),
            "best_gradient": torch.zeros_like(points),
            "gradient": torch.zeros_like(points),
        }

    def look(self, passes: Passes, state: State) -> Tensor:
        age, points = state["age"], state["points"]
        logits, losses, state["gradient"] = evaluate(self._aim, passes, state, self.length)
        higher = losses > state["highest"]
        state["highest"] = torch.where(higher, losses, state["highest"])
        state["rises"] += (losses > state["last"]) & (age > 0)
        state["last"] = torch.where(age > 0, losses, 0)  # the first comparison is with 0, as published
        _host.overwrite(higher, state["best"], points)
        _host.overwrite(higher, state["best_gradient"], state["gradient"])
        return succeeded(self._aim.rule, logits, state["labels"])

    def move(self, state: State) -> None:
        update = state["age"] - 1
        self._adapt(state, update)
        weight = torch.where(update == 0, 1.0, _MOMENTUM).to(state["points"].dtype)[:, None, None, None]
        points, step = state["points"], state["step"]
        # x + a (z - x) + (1 - a) (x - before) = a z + (1 - a) (2 x - before), written over `before`
        onwards = state["previous"].neg_().add_(points, alpha=2).mul_(1 - weight)
        if "lower" in state:
            landing = state["gradient"].sign_().mul_(step).add_(points)
            landing.clamp_(state["lower"], state["upper"])
            onwards.addcmul_(landing, weight).clamp_(state["lower"], state["upper"])
        else:
            landing = self._shrunk(state["gradient"].mul_(step / _lengths(state["gradient"])).add_(points), state)
            onwards = self._shrunk(onwards.addcmul_(landing, weight), state)
        state["previous"], state["points"] = points, onwards

    def best(self, state: State) -> tuple[Tensor, Tensor]:
        return state["best"], state["highest"].double()

    def _adapt(self, state: State, update: Tensor) -> None:
        """At the end of a period: halve the step and go on from the best point, where the step has stopped helping."""
        if self._ends.device != update.device:
            self._ends = self._ends.to(update.device)
        period = self._ends[update.clamp(max=self.length - 1)]
        if _host.can_look(period) and not bool(period.any()):
            return
        ends = period > 0
        few = state["rises"] <= _LEAST_RISES * period
        stuck = ~state["halved"] & (state["checked"] >= state["highest"])
        halve = ends & (few | stuck)
        state["step"] = torch.where(halve[:, None, None, None], state["step"] / 2, state["step"])
        state["halved"] = torch.where(ends, halve, state["halved"])
        state["checked"] = torch.where(ends, state["highest"], state["checked"])
        state["rises"] = torch.where(ends, 0, state["rises"])
        wide = halve[:, None, None, None]
        state["points"] = torch.where(wide, state["best"], state["points"])
        state["gradient"] = torch.where(wide, state["best_gradient"], state["gradient"])

    def _shrunk(self, candidates: Tensor, state: State) -> Tensor:
        """Candidates pulled straight towards their images onto the ball, then clipped; overwrites them."""
        offsets = candidates.sub_(state["origin"])
        factor = (state["radius"] / _lengths(offsets)).clamp_(max=1)
        return offsets.mul_(factor).add_(state["origin"]).clamp_(0, 1)


def _lengths(vectors: Tensor) -> Tensor:
    """Euclidean lengths (n, 1, 1, 1), never zero."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=_PIXELS, keepdim=True)
    return lengths.clamp_(min=1e-12)
