"""The runs of APGD in the L1 ball, as a search of the pool."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._apgd import Aim, evaluate
from robust_attacks._order import kth_largest
from robust_attacks._passes import Passes
from robust_attacks._pool import Jobs, State
from robust_attacks.losses import succeeded
from robust_attacks.projections import project_l1

_PIXELS = (1, 2, 3)
_RADII = (3.0, 2.0, 1.0)  # of the three phases, in units of eps
_DENSER = 1.5  # the step is as sparse as the best perturbation, divided by this


def phases(steps: int) -> list[int]:
    """Updates of the three phases: 30, 30 and 40 of 100."""
    early = min(-(-3 * steps // 10), (steps - 1) // 2)
    return [early, early, steps - 2 * early]


@dataclass(frozen=True)
class _Timetable:
    """What each look of a run is: int64 or float64 (length,)."""

    update: Tensor  # updates made in its phase
    radius: Tensor  # in units of eps
    period: Tensor  # updates between two checks of the step
    last_phase: Tensor  # bool
    next_radius: Tensor  # after the last look of a phase that of the next, else 0

    @classmethod
    def of(cls, steps: int) -> "_Timetable":
        rows = []
        plan = [(count, radius) for count, radius in zip(phases(steps), _RADII, strict=True) if count]
        for phase, (count, radius) in enumerate(plan):
            following = plan[phase + 1][1] if phase + 1 < len(plan) else 0.0
            period = max(4 * count // 100, 1)
            rows += [
                (update, radius, period, radius == 1.0, following if update == count else 0.0)
                for update in range(count + 1)
            ]
        return cls(*(torch.tensor(column) for column in zip(*rows, strict=True)))

    def to(self, device: torch.device) -> "_Timetable":
        return self if self.update.device == device else type(self)(*(c.to(device) for c in vars(self).values()))


class SparseClimb:
    """Sparse steps, as sparse as the best perturbation so far, in a shrinking ball; arXiv:2103.01208, algorithm 1."""

    def __init__(self, aim: Aim, steps: int, use: str) -> None:
        self.runs = aim.runs
        self._table = _Timetable.of(steps)
        self.length = len(self._table.update)
        self._aim = aim
        self._use = use

    def start(self, jobs: Jobs) -> State:
        images, count = jobs.images, len(jobs.images)
        eps = torch.as_tensor(jobs.threat.radii(images), dtype=torch.float64, device=images.device)
        eps = eps.reshape(-1, 1, 1, 1).expand(count, 1, 1, 1).clone()
        restart, target = self._aim.random_run(jobs.run)
        noise = jobs.random.normal(self._use, images.shape[1:], restart=restart, target=target).to(images.dtype)
        state = {"labels": jobs.labels, "images": images.clone(), "origin": images.double(), "eps": eps}
        state["radius"] = eps * float(self._table.radius[0])
        points = project_l1(images, state["origin"], images + noise, state["radius"])
        state |= {
            "points": points,
            "best": points.clone(),
            "best_gradient": torch.zeros_like(points),
            "gradient": torch.zeros_like(points),
            "highest": torch.full((count,), -torch.inf, dtype=images.dtype, device=images.device),
            "step": state["radius"].clone(),
            "changed": self._changed(points, state),
        }
        state["density"] = state["changed"] / (_DENSER * images[0].numel())
        return state | self._aim.prepare(jobs)

    def look(self, passes: Passes, state: State) -> Tensor:
        self._table = self._table.to(state["points"].device)
        points = state["points"]
        logits, losses, state["gradient"] = evaluate(self._aim, passes, state, self.length)
        higher = losses > state["highest"]
        state["highest"] = torch.where(higher, losses, state["highest"])
        _host.overwrite(higher, state["best"], points)
        _host.overwrite(higher, state["best_gradient"], state["gradient"])
        return succeeded(self._aim.rule, logits, state["labels"]) & self._table.last_phase[state["age"]]

    def move(self, state: State) -> None:
        look = state["age"] - 1
        self._adapt(state, look)
        images, origin = state["images"], state["origin"]
        following = self._table.next_radius[look]
        shrinks = following > 0
        landing = state["points"] + state["step"].to(images.dtype) * self._direction(state)
        if not _known_none(shrinks):
            wide = shrinks[:, None, None, None]
            state["radius"] = torch.where(wide, following[:, None, None, None] * state["eps"], state["radius"])
            landing = torch.where(wide, state["best"], landing)
            state["points"] = project_l1(images, origin, landing, state["radius"])
            state["changed"] = torch.where(shrinks, self._changed(state["points"], state), state["changed"])
            state["density"] = torch.where(shrinks, state["changed"] / self._dense(images), state["density"])
            state["step"] = torch.where(wide, state["radius"], state["step"])
            state["highest"] = torch.where(shrinks, -torch.inf, state["highest"])
        else:
            state["points"] = project_l1(images, origin, landing, state["radius"])

    def best(self, state: State) -> tuple[Tensor, Tensor]:
        return state["best"], state["highest"].double()

    def _adapt(self, state: State, look: Tensor) -> None:
        """After every period: a smaller step while the best perturbation keeps its sparsity, else afresh from it."""
        update, period = self._table.update[look], self._table.period[look]
        ends = (update > 0) & (update % period == 0)
        if _known_none(ends):
            return
        changed = self._changed(state["best"], state)
        sparser = ends & (changed / state["changed"] < 0.95)
        density = changed / self._dense(state["images"])
        step = torch.where(sparser[:, None, None, None], state["radius"], state["step"] / _DENSER)
        step = torch.maximum(torch.minimum(step, state["radius"]), state["radius"] / 10)
        state["step"] = torch.where(ends[:, None, None, None], step, state["step"])
        state["density"] = torch.where(ends, density, state["density"])
        state["changed"] = torch.where(ends, changed, state["changed"])
        wide = sparser[:, None, None, None]
        state["points"] = torch.where(wide, state["best"], state["points"])
        state["gradient"] = torch.where(wide, state["best_gradient"], state["gradient"])

    def _direction(self, state: State) -> Tensor:
        """Equal steps, 1 in sum, along the share `density` of pixels with the largest gradients."""
        gradient = state["gradient"].flatten(1)
        sizes, count = gradient.abs(), gradient.shape[1]
        position = ((1 - state["density"]) * count).clamp(0, count - 1).long()  # in ascending order
        least = kth_largest(sizes, count - position)
        signs = gradient.sign().mul_(sizes >= least[:, None])
        return (signs / (signs.abs().sum(dim=1, keepdim=True) + 1e-10)).reshape(state["points"].shape)

    def _changed(self, points: Tensor, state: State) -> Tensor:
        """How many pixels of each image are changed, float64 (n,)."""
        return (points != state["images"]).sum(dim=_PIXELS).double()

    def _dense(self, images: Tensor) -> float:
        return _DENSER * images[0].numel()


def _known_none(mask: Tensor) -> bool:
    """Whether no row is concerned, where asking does not make the host wait; else False."""
    return _host.can_look(mask) and not bool(mask.any())
