"""Square, the black-box attack of AutoAttack."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from robust_attacks._checks import Model
from robust_attacks._pool import Search
from robust_attacks._run import run
from robust_attacks._settings import check_count, check_loss, check_threat
from robust_attacks._square_l1 import Bumps1
from robust_attacks._square_l2 import Bumps2
from robust_attacks._square_linf import Squares
from robust_attacks._square_search import Make, RandomSearch
from robust_attacks._square_windows import Schedule
from robust_attacks.losses import Loss, margin
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat

_KINDS: dict[str, Make] = {"Linf": Squares, "L2": Bumps2, "L1": Bumps1}


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search over square windows: needs no gradient, only logits.

    Andriushchenko, Croce, Flammarion, Hein, "Square attack: a query-efficient black-box adversarial attack via random
    search", ECCV 2020, arXiv:1912.00049, algorithms 1 to 3; L1 as in AutoAttack (Croce and Hein, ICML 2021,
    arXiv:2103.01208). Unlike the published code, every image has windows, signs and orientations of its own, so its
    outcome does not depend on the others.

    An image costs one forward pass for its start and one for every proposal, `queries` + 1 at most, and no backward
    pass; under Linf, proposals that change no pixel are passed over. It is done once it is misclassified (but see
    `eot`); images that are so already come back unchanged, and an image that is never broken comes back as the point
    of largest loss.

    Args:
        threat: what the attacker may change: `Linf`, `L2` or `L1`.
        queries: proposals per image, >= 1.
        p_init: fraction of the pixels that the first windows cover, 0 < p_init <= 1.
        rescale_schedule: shrink the windows in the rhythm of 10,000 proposals, squeezed or stretched to `queries`.
            AutoAttack does not: after 5000 proposals it has got to `p_init / 128`.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        eot: draws of a randomised model that each evaluation averages, >= 1. With several, a success does not end the
            search: all proposals are made, and the best point counts.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if a setting is out of its range.

    Examples:
        >>> import torch
        >>> from robust_attacks import ImageRandom, Linf
        >>> step = lambda images: torch.stack((images.mean(dim=(1, 2, 3)) < 0.6, images[:, 0, 0, 0] > 0), dim=1).float()
        >>> images, attack = torch.full((1, 1, 4, 4), 0.55), Square(threat=Linf(eps=0.1), queries=100)
        >>> step(attack(step, images, torch.tensor([0]), random=ImageRandom(0)))
        tensor([[0., 1.]])
    """

    threat: Threat
    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False
    loss: Loss = margin
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("Square", self.threat)
        if self.threat.name not in _KINDS:
            raise ValueError(f"Square knows the threats Linf, L2 and L1, got {self.threat.name}: PGD takes any threat")
        check_count("Square", "queries", self.queries)
        _check_fraction(self.p_init)
        _check_flag(self.rescale_schedule)
        check_loss("Square", self.loss)
        check_count("Square", "eot", self.eot)

    @property
    def name(self) -> str:
        """As AutoAttack calls it."""
        return "square"

    @property
    def rule(self) -> Loss:
        """The loss whose rule of success counts."""
        return self.loss

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K); it need not be differentiable.
            images: float32 or float64 (N, C, H, W) in [0, 1], of at most 128 channels.
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, or the model changes its input in place.

        Warns:
            RuntimeWarning: if logits of images were not finite.
        """
        return run(self, model, images, labels, random)

    def search(self, classes: int, seed: int) -> Search:  # noqa: ARG002  # the same for any number of classes
        """The search of an image in the pool."""
        schedule = Schedule(queries=self.queries, p_init=self.p_init, rescale=self.rescale_schedule)
        return RandomSearch(_KINDS[self.threat.name], schedule, self.loss, seed, patient=self.eot > 1)


def _check_fraction(p_init: Any) -> None:
    if isinstance(p_init, bool) or not isinstance(p_init, Real):
        raise TypeError(f"Square: p_init must be a number, got {p_init!r} ({type(p_init).__name__})")
    if not 0 < float(p_init) <= 1:
        raise ValueError(f"Square: p_init is a fraction of the pixels, 0 < p_init <= 1, got {p_init}")


def _check_flag(rescale_schedule: Any) -> None:
    if not isinstance(rescale_schedule, bool):
        raise TypeError(
            "Square: rescale_schedule must be True or False, "
            f"got {rescale_schedule!r} ({type(rescale_schedule).__name__})"
        )
