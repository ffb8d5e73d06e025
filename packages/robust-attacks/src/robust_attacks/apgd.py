"""Auto-PGD, the gradient attack of AutoAttack."""

from dataclasses import dataclass

from torch import Tensor

from robust_attacks._apgd import Aim, Climb
from robust_attacks._apgd_l1 import SparseClimb
from robust_attacks._checks import Model
from robust_attacks._pool import Jobs, Search, State
from robust_attacks._run import run
from robust_attacks._settings import check_count, check_loss, check_threat
from robust_attacks.losses import Loss, cross_entropy, dlr, margin, targeted_dlr
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat

_SHORT: dict[Loss, str] = {cross_entropy: "ce", dlr: "dlr", margin: "margin"}


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Projected gradient ascent with momentum whose step halves by itself; no step size to choose.

    Linf and L2: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, arXiv:2003.01690, algorithm 1. L1: Croce and Hein, "Mind the box: l1-APGD for
    sparse adversarial attacks on image classifiers", ICML 2021, arXiv:2103.01208, with sparse steps, the exact
    projection onto ball and box, and three phases of radius 3 eps, 2 eps and eps.

    A run costs `steps` + 1 forward and `steps` backward passes (L1: 2 more of each, for the starts of the phases), and
    ends as soon as the image is broken. The result is as if the runs of an image, restarts or targets, were made one
    after another up to the first success. Images that are misclassified already come back unchanged; an image that
    is never broken comes back as the iterate of highest loss.

    Args:
        threat: what the attacker may change: `Linf`, `L2` or `L1`.
        steps: updates of a run, >= 1.
        restarts: runs from different random starts, 1..256.
        targets: 0, or the number of runs of which each approaches one of the other classes, in the order of the clean
            image's logits (APGD-T); at most K - 1 runs are made. Any misclassification is a success.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,). None means `cross_entropy`, or the targeted
            DLR loss with `targets`, which then is the only one.
        eot: draws of a randomised model that each evaluation averages, >= 1.

    Raises:
        ValueError: if a setting is out of its range, or `targets` is combined with `restarts` or `loss`.

    Examples:
        >>> import torch
        >>> from robust_attacks import APGD, ImageRandom, Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> attack = APGD(threat=Linf(eps=0.2), steps=10)
        >>> attack(model, torch.full((1, 1, 1, 2), 0.3), torch.tensor([0]), random=ImageRandom(seed=0)).shape
        torch.Size([1, 1, 1, 2])
    """

    threat: Threat
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    loss: Loss | None = None
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("APGD", self.threat)
        if self.threat.name not in ("Linf", "L2", "L1"):
            raise ValueError(f"APGD knows the threats Linf, L2 and L1, got {self.threat.name}: PGD takes any threat")
        check_count("APGD", "steps", self.steps)
        check_count("APGD", "restarts", self.restarts, most=256)
        check_count("APGD", "eot", self.eot)
        if self.loss is not None:
            check_loss("APGD", self.loss)
        if self.targets != 0:
            check_count("APGD", "targets", self.targets)
            if self.loss is not None:
                raise ValueError("APGD: runs towards targets increase the targeted DLR loss: leave out loss")
            if self.restarts > 1:
                raise ValueError("APGD: with targets every target gets one run: leave out restarts, or targets")

    @property
    def name(self) -> str:
        """As AutoAttack calls it: `apgd-ce`, `apgd-dlr`, `apgd-t`; else `apgd-` and the name of the loss."""
        if self.targets:
            return "apgd-t"
        return f"apgd-{_SHORT.get(self.rule) or getattr(self.rule, '__name__', 'loss')}"

    @property
    def rule(self) -> Loss:
        """The loss whose rule of success counts."""
        return cross_entropy if self.loss is None else self.loss

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
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
        aim = self._towards_targets(classes) if self.targets else self._away()
        kind = SparseClimb if self.threat.name == "L1" else Climb
        return kind(aim, self.steps, f"{self.name}/start")

    def _away(self) -> Aim:
        loss = self.rule
        return Aim(
            losses=lambda logits, state: loss(logits, state["labels"]),
            rule=loss,
            runs=self.restarts,
            prepare=_nothing,
            random_run=lambda run: (run, 0),
        )

    def _towards_targets(self, classes: int) -> Aim:
        return Aim(
            losses=lambda logits, state: targeted_dlr(logits, state["labels"], state["target"]),
            rule=cross_entropy,
            runs=min(self.targets, classes - 1),
            prepare=_target,
            random_run=lambda run: (0, run + 1),
        )


def _nothing(jobs: Jobs) -> State:  # noqa: ARG001
    return {}


def _target(jobs: Jobs) -> State:
    """The class that is next in the clean logits, after the predicted one and those of earlier runs."""
    return {"target": jobs.logits.argsort(dim=1, descending=True, stable=True)[:, jobs.run + 1]}
