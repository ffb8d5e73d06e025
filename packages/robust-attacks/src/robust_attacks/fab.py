"""The fast adaptive boundary attack."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call, check_result
from robust_attacks._fab import Walk
from robust_attacks._gradient import Objective
from robust_attacks._passes import Passes
from robust_attacks._pool import Given, Search
from robust_attacks._purity import pristine
from robust_attacks._run import run
from robust_attacks._settings import check_count, check_number, check_threat
from robust_attacks._verify import full_precision
from robust_attacks.closest import BOX, Closest, Shortest, verified
from robust_attacks.hyperplane import Norm
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Walk along the decision boundary towards the image: the smallest change that is misclassified, in any norm.

    Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
    arXiv:1907.02044, algorithm 1, without its final search. Each step linearises the boundary, goes a little beyond it
    by the exact projections of `hyperplane.Hyperplanes` of the current point and of the image, and pulls a point
    that is misclassified back towards the image. Where it is pulled to costs no pass to judge, since
    the gradient is taken there anyway: if it is still misclassified, it counts. So the results are never
    weaker than those of the published code, which forgets these points.

    Called, it looks for a point inside the threat and stops at the first; `minimum` uses all steps of all runs and
    hands back the closest point at any distance. Images that are misclassified already come back unchanged.

    A step towards a target costs one forward and backward pass and one forward pass; an untargeted one has K - 1
    backward passes, on one graph.

    Args:
        threat: what the attacker may change: `Linf`, `L2` or `L1`. `minimum` takes from it the norm, and the
            radius of random starts.
        steps: steps of a run, >= 1.
        restarts: untargeted runs, 1..256: the first from the image, the others from random points half of eps away.
            Runs towards targets start from the image alone, once each, so that nothing is random.
        targets: None, or the number of runs of which each approaches one of the other classes, in the order of the
            clean image's logits (FAB-T); at most K - 1 runs are made. Any misclassification is a success.
        alpha_max: the largest weight of the image's own projection, 0..1.
        eta: how far to step, >= 1, where 1 leads onto the linearised boundary.
        beta: which share of its change a misclassified point keeps, 0..1.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if it is out of its range.

    Examples:
        >>> from robust_attacks import Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.8), dim=1)
        >>> attack = FAB(threat=Linf(eps=0.2), targets=9)
        >>> closest = attack.minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        >>> closest.adversarial  # the boundary is a sum of 0.8
        tensor([[[[0.3995, 0.3995]]]])
    """

    threat: Threat
    steps: int = 100
    restarts: int = 5
    targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_threat("FAB", self.threat)
        if self.threat.name not in ("Linf", "L2", "L1"):
            raise ValueError(f"FAB knows the threats Linf, L2 and L1, got {self.threat.name}: PGD takes any threat")
        check_count("FAB", "steps", self.steps)
        check_count("FAB", "restarts", self.restarts, most=256)
        if self.targets is not None:
            check_count("FAB", "targets", self.targets)
        check_number("FAB", "alpha_max", self.alpha_max, most=1)
        check_number("FAB", "eta", self.eta, least=1)
        check_number("FAB", "beta", self.beta, most=1)

    @property
    def name(self) -> str:
        """As AutoAttack calls it: `fab`, or `fab-t` with targets."""
        return "fab-t" if self.targets else "fab"

    @property
    def eot(self) -> int:
        """Draws of a randomised model per evaluation: one."""
        return 1

    @property
    def rule(self) -> Loss:
        """The loss whose rule of success counts: any misclassification."""
        return cross_entropy

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images within the threat; where nothing is found inside, the clean image comes back.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if logits of images were not finite.
        """
        return run(self, model, images, labels, random)

    def search(self, classes: int, seed: int) -> Search:  # noqa: ARG002  # the jobs bring their streams along
        """The runs of an image in the pool."""
        return self._walk(classes)

    def minimum(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Closest:
        """Find the closest misclassified images, be they inside the threat or not; arguments as for a call.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if logits of images were not finite.
        """
        random = check_call(self.threat, images, labels, random)
        with pristine(model, images, random.seed) as model, full_precision(images.device):
            images, labels = images.detach().clone(), labels.clone()
            objective = Objective(model, self.rule, images)
            shortest = Shortest(self._norm, images)
            if not len(images):
                return verified(objective, partial(succeeded, self.rule), shortest, labels)
            with torch.no_grad():
                logits = objective.logits(images, labels)
            finite = logits.isfinite().all(dim=1)
            settled = succeeded(self.rule, logits, labels)
            shortest.show(images, settled, torch.zeros(len(images), dtype=torch.float64, device=images.device))
            given = Given(images, labels, logits, random, self.threat, images.device)
            rows = (~settled).nonzero()[:, 0]
            if len(rows):
                finite[rows] &= self._explore(Passes(model), given, rows, shortest)
            closest = verified(objective, partial(succeeded, self.rule), shortest, labels)
        broken = int((~finite).sum())
        if broken:
            warnings.warn(
                f"logits of {broken} of {len(images)} images were not finite, so these images were hardly attacked: "
                "look for overflow, 0 / 0, log(0) or sqrt(0) in the model",
                RuntimeWarning,
                stacklevel=2,
            )
        return replace(closest, adversarial=check_result(BOX, images, closest.adversarial))

    def _explore(self, passes: Passes, given: Given, rows: Tensor, shortest: Shortest) -> Tensor:
        """All steps of all runs of some images, which are shown to `shortest`; whose logits were finite, bool."""
        walk = self._walk(given.logits.shape[1])
        found = Shortest(self._norm, given.images[rows])
        finite = torch.ones_like(rows).bool()
        for run_number in range(walk.runs):
            state = walk.start(given.jobs(rows.cpu(), run_number))
            for _ in range(walk.length):
                for seen in walk.visit(passes, state):
                    found.show(seen.points, seen.adversarial, seen.distances)
                if passes.finite is not None:
                    finite &= passes.finite
                walk.move(state)
        shortest.adversarial[rows], shortest.distances[rows] = found.adversarial, found.distances
        return finite

    def _walk(self, classes: int) -> Walk:
        return Walk(
            runs=self.restarts if self.targets is None else min(self.targets, classes - 1),
            length=self.steps,
            norm=self._norm,
            targeted=self.targets is not None,
            alpha_max=self.alpha_max,
            eta=self.eta,
            beta=self.beta,
        )

    @property
    def _norm(self) -> Norm:
        return cast("Norm", self.threat.name)
