"""The runs of FAB, as a search of the pool."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._passes import Passes
from robust_attacks._pool import Jobs, State
from robust_attacks.hyperplane import Hyperplanes, Norm, lengths, sums
from robust_attacks.losses import cross_entropy, succeeded

_DUALS: dict[Norm, Norm] = {"Linf": "L1", "L2": "L2", "L1": "Linf"}
_NOTHING = 1e-12  # keeps a boundary that cannot be reached from being divided by zero
_SHORTEST = 1e-8  # what a displacement counts for at least
_ROUNDING = 1e-6  # how far beyond eps, relative to it, a point may seem to be and still be shown to the judge


@dataclass(frozen=True)
class Seen:
    """Points that the model has judged.

    Args:
        points: (n, C, H, W).
        adversarial: which of them are misclassified, bool (n,).
        distances: from the clean images in the norm, float64 (n,), up to float32 rounding.
    """

    points: Tensor
    adversarial: Tensor
    distances: Tensor


@dataclass
class Walk:
    """Steps onto the linearised decision boundary, biased towards the clean image; arXiv:1907.02044, algorithm 1.

    Args:
        runs: runs an image gets at most.
        length: steps of a run.
        norm: how distances are measured.
        targeted: run r approaches the boundary to the class of rank r + 2 of the clean logits; else to the class whose
            boundary is nearest.
        alpha_max: the largest weight of the clean image's own displacement.
        eta: how far to go, 1 being the linearised boundary.
        beta: how much of its change a misclassified point keeps.
    """

    runs: int
    length: int
    norm: Norm
    targeted: bool
    alpha_max: float
    eta: float
    beta: float

    def start(self, jobs: Jobs) -> State:
        images = jobs.images
        radii = torch.as_tensor(jobs.threat.radii(images), dtype=torch.float64, device=images.device)
        radii = radii.flatten().expand(len(images))
        # Tensors of its own, as the pool asks: it writes new jobs into them.
        state = {"labels": jobs.labels.clone(), "origin": images.clone(), "eps": radii.clone()}
        if self.targeted:
            others = jobs.logits.scatter(1, jobs.labels[:, None], torch.inf)
            state["target"] = others.argsort(dim=1, descending=True, stable=True)[:, jobs.run + 1]
        points = images.clone()
        if jobs.run and not self.targeted:
            draw = jobs.random.uniform if self.norm == "Linf" else jobs.random.normal
            noise = draw("fab/start", images.shape[1:], restart=jobs.run).double()
            noise = 2 * noise - 1 if self.norm == "Linf" else noise
            scale = radii / 2 / lengths(self.norm, noise.flatten(1).clone()).clamp_(min=1e-300)
            points = (images + scale[:, None, None, None] * noise).clamp_(0, 1).to(images.dtype)
        distances = lengths(self.norm, (points - images).flatten(1))
        return state | {"points": points, "distance": distances, "adversarial": torch.zeros_like(jobs.labels).bool()}

    def look(self, passes: Passes, state: State) -> Tensor:
        before, landing = self.visit(passes, state)
        reach = state["eps"] * (1 + _ROUNDING)
        early = before.adversarial & (before.distances <= reach)
        if not _host.can_look(early) or bool(early.any()):
            state["points"] = torch.where(early[:, None, None, None], before.points, landing.points)
            # If the win is not confirmed, the job goes on from there.
            state["distance"] = torch.where(early, before.distances, landing.distances)
            state["adversarial"] = early | landing.adversarial
        return early | (landing.adversarial & (landing.distances <= reach))

    def visit(self, passes: Passes, state: State) -> tuple[Seen, Seen]:
        """One step of every job: the points that it started from and those where it landed, both judged."""
        points, labels = state["points"], state["labels"]
        logits, gaps, normals = self._boundary(passes, state)
        finite = passes.finite
        before = Seen(points, succeeded(cross_entropy, logits, labels), state["distance"])
        landed = self._step(points.flatten(1), state["origin"].flatten(1), gaps, normals.flatten(1))
        landing = landed.view_as(points)
        logits = passes.logits(landing)
        if finite is not None:
            passes.finite = finite if passes.finite is None else passes.finite & finite
        changes = landed - state["origin"].flatten(1)
        after = Seen(landing, succeeded(cross_entropy, logits, labels), lengths(self.norm, changes))
        state["points"], state["distance"], state["adversarial"] = landing, after.distances, after.adversarial
        return before, after

    def move(self, state: State) -> None:
        kept = torch.where(state["adversarial"], self.beta, torch.ones_like(state["distance"]))
        state["distance"] = state["distance"] * kept
        kept = kept.to(state["points"].dtype)[:, None, None, None]
        state["points"] = torch.lerp(state["origin"], state["points"], kept)

    def best(self, state: State) -> tuple[Tensor, Tensor]:
        """Nothing: whatever had been found inside the threat would have won."""
        return state["origin"], torch.full_like(state["distance"], -torch.inf)

    def _step(self, points: Tensor, origin: Tensor, gaps: Tensor, normals: Tensor) -> Tensor:
        """From points (n, d) onto the hyperplane where the linearised gap is zero, and beyond, inside the box."""
        planes = Hyperplanes(normals, self.norm)
        ahead, length = planes.nearest(points, gaps)
        gaps_of_origin = gaps - sums((points - origin).mul_(normals))
        shortcut, length_of_origin = planes.nearest(origin, gaps_of_origin)
        length, length_of_origin = length.clamp(min=_SHORTEST), length_of_origin.clamp(min=_SHORTEST)
        bias = (length / (length + length_of_origin)).clamp_(max=self.alpha_max).to(points.dtype)[:, None]
        torch.lerp(points, ahead, self.eta, out=ahead)
        torch.lerp(origin, shortcut, self.eta, out=shortcut)
        return torch.lerp(ahead, shortcut, bias, out=ahead).clamp_(0, 1)

    def _boundary(self, passes: Passes, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, K), the gap `z_c - z_y` float64 (n,) to the class c to approach, and its gradient (n, C, H, W)."""
        if self.targeted:
            pairs = torch.stack((state["target"], state["labels"]), dim=1)
            logits, gaps, gradient = passes.gradient(state["points"], lambda logits: _gap(logits, pairs))
        else:
            logits, gaps, gradient = self._nearest_boundary(passes, state["points"], state["labels"])
        if gradient is None:
            gradient = torch.zeros_like(state["points"])
        return logits, gaps.double().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0), gradient

    def _nearest_boundary(self, passes: Passes, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for the class whose linearised boundary is nearest, of all but the label."""
        dual = _DUALS[self.norm]
        logits, slopes = gradients(passes, points, labels)
        gaps, gradient = next(slopes)
        least = gaps.abs() / (lengths(dual, gradient.flatten(1).clone()) + _NOTHING)
        for gap, normal in slopes:
            distance = gap.abs() / (lengths(dual, normal.flatten(1).clone()) + _NOTHING)
            nearer = distance < least
            least, gaps = torch.where(nearer, distance, least), torch.where(nearer, gap, gaps)
            gradient = torch.where(nearer[:, None, None, None], normal, gradient)
        return logits, gaps, gradient


def gradients(passes: Passes, points: Tensor, labels: Tensor) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """Logits (n, K), and for each of the K - 1 other classes c the gaps `z_c - z_y` (n,) and their gradient.

    One forward pass, whose graph is kept for K - 1 backward passes. Row i comes to its classes in the order
    y + 1, y + 2, ..., modulo K. NaN in the gradients counts as zero.
    """
    leaf = points.detach().requires_grad_()
    logits = passes.draw(leaf)
    passes.finite = logits.isfinite().all(dim=1)
    classes = logits.shape[1]

    def each() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(1, classes):
            gaps = _gap(logits, torch.stack(((labels + step) % classes, labels), dim=1))
            gradient = None
            if gaps.requires_grad:
                more = step < classes - 1
                gradient = torch.autograd.grad(gaps.sum(), leaf, retain_graph=more, allow_unused=True)[0]
                passes.backwards += len(points)
            # A new tensor: autograd may hand out expanded ones.
            slope = torch.zeros_like(points) if gradient is None else gradient.nan_to_num(nan=0.0)
            yield gaps.detach(), slope

    return logits.detach(), each()


def _gap(logits: Tensor, pairs: Tensor) -> Tensor:
    first, second = logits.gather(1, pairs).unbind(dim=1)
    return first - second
