"""The worst case over attacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol, cast

from torch import Tensor

from robust_attacks._accelerated import Accelerate
from robust_attacks._checks import Model, check_result
from robust_attacks._evaluation import evaluate
from robust_attacks._settings import check_count, check_threat
from robust_attacks.losses import Targeted
from robust_attacks.random import ImageRandom
from robust_attacks.report import Progress, Report
from robust_attacks.threats import Threat


class Attack(Protocol):
    """Anything that perturbs images, as every attack of this package does."""

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Images (N, C, H, W) and true labels (N,) to perturbed images (N, C, H, W)."""
        ...


@dataclass(frozen=True)
class WorstCase:
    """Several attacks as one: each gets only the images that those before it have not broken.

    The protocol of AutoAttack (Croce and Hein, ICML 2020, arXiv:2003.01690) and of RobustBench (Croce et al., NeurIPS
    Datasets and Benchmarks 2021, arXiv:2010.09670). Every attack starts from the clean image. A success counts once a
    second look has confirmed it: inside the threat in float64, misclassified in float32 without autocast or TF32.
    Images that are misclassified already are never attacked; they and unbroken images come back as they are.

    Args:
        attacks: in order; a mapping gives the stages their names, otherwise the attacks do.
        threat: what every success must stay inside; None means the attacks' own, which must be the same for all. Needed
            for attacks that have none, as minimum-norm attacks; `Linf(eps=1)` is the whole box.
        name: what the report calls it.
        seed: of the images' random streams, where a call is given none.
        sanity: look for signs that the numbers may mislead, and put them into the report as flags.

    Raises:
        TypeError: if an attack is none.
        ValueError: if there is no attack, threats differ, or an attack leaves the threat by design or needs targets.

    Examples:
        >>> import torch
        >>> from robust_attacks import FGSM, PGD, Linf, WorstCase
        >>> attack = WorstCase([FGSM(threat=Linf(eps=0.1)), PGD(threat=Linf(eps=0.1), steps=5)])
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> report = attack.run(model, torch.full((2, 1, 1, 2), 0.35), torch.tensor([0, 1]))
        >>> report.broken_by
        ('fgsm', 'clean')
    """

    attacks: Sequence[Attack] | Mapping[str, Attack]
    threat: Threat | None = None
    name: str = "worst case"
    seed: int = 0
    sanity: bool = True

    def __post_init__(self) -> None:
        given: Any = self.attacks
        if callable(given) or not isinstance(given, Sequence | Mapping):
            raise TypeError(f"WorstCase takes several attacks, as WorstCase([PGD(...), Square(...)]), got {given!r}")
        attacks = tuple(given.values() if isinstance(given, Mapping) else given)
        if not attacks:
            raise ValueError("WorstCase needs at least one attack")
        for attack in attacks:
            _check_attack(attack)
        object.__setattr__(self, "attacks", dict(given) if isinstance(given, Mapping) else _named(attacks))
        object.__setattr__(self, "threat", self._common_threat(attacks))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"WorstCase: seed must be an int, got {self.seed!r}")

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """The confirmed adversarial image where an attack breaks it, else the image as it is.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, int64 (N,).
            random: the images' random streams; None means those of `seed`.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.
        """
        random = ImageRandom(self.seed) if random is None else random
        report = evaluate(self, model, images, labels, random, batch_size=max(len(images), 1), sanity=False)
        assert report.adversarial is not None
        return check_result(cast("Threat", self.threat), images, report.adversarial)

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        *,
        batch_size: int = 128,
        checkpoint: str | PathLike[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        accelerate: Accelerate | None = None,
    ) -> Report:
        """Attack a whole set of images and tell what happened.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1], on the device of the model, or on the CPU if they do not
                fit there.
            labels: true classes, int64 (N,).
            ids: the numbers of the images in their data set, int64 (N,); None means 0..N-1. With them a set can be
                split over processes and shuffled without changing anything for an image.
            batch_size: images per pass of the model, and searches that go on side by side. It does not change the
                result.
            checkpoint: a file that keeps what is known, written after every stage, every minute, and when the run is
                interrupted; a call that finds it goes on from there. It is refused when suite, seed, model, images,
                labels or ids are others.
            progress: called with a `Progress` a few times per second, and at the end of every stage.
            accelerate: makes a faster model of the model for the searches, as `torch.compile`, or
                `functools.partial(torch.compile, mode="reduce-overhead")` for CUDA graphs. Verdicts stay with the
                model itself; images that lie within its rounding of the boundary may fall otherwise. It is shown
                batches of few sizes, so that little has to be compiled.

        Raises:
            TypeError: if images, labels, ids or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, or the checkpoint belongs to another run.
        """
        check_count("run", "batch_size", batch_size)
        random = ImageRandom(self.seed, ids)
        return evaluate(
            self,
            model,
            images,
            labels,
            random,
            batch_size,
            sanity=self.sanity,
            checkpoint=checkpoint,
            progress=progress,
            accelerate=accelerate,
        )

    @property
    def stages(self) -> dict[str, Attack]:
        """The attacks by the names of their stages, in order."""
        return dict(cast("Mapping[str, Attack]", self.attacks))

    def _common_threat(self, attacks: tuple[Any, ...]) -> Threat:
        threats: list[Threat] = [attack.threat for attack in attacks if getattr(attack, "threat", None) is not None]
        if self.threat is not None:
            check_threat("WorstCase", self.threat)
            return self.threat
        if len(threats) < len(attacks):
            raise ValueError("WorstCase: an attack has no threat of its own: say what counts, as threat=L2(eps=0.5)")
        if any(threat != threats[0] for threat in threats):
            raise ValueError(f"WorstCase: the attacks have different threats, {threats}: pass one threat for all")
        return threats[0]


def _check_attack(attack: Any) -> None:
    if isinstance(attack, type) or not callable(attack):
        raise TypeError(f"WorstCase: {attack!r} is no attack: pass objects as PGD(threat=Linf(eps=8/255))")
    if not getattr(attack, "inside_threat", True):
        raise ValueError(f"WorstCase: {type(attack).__name__} leaves its threat by design: it is for training only")
    if isinstance(getattr(attack, "loss", None), Targeted):
        raise ValueError(
            f"WorstCase gives its attacks true labels, but the loss of {type(attack).__name__} takes targets: "
            "call a targeted attack by itself"
        )


def _named(attacks: tuple[Any, ...]) -> dict[str, Attack]:
    """The attacks by their names, or those of their classes; of equal names all but the first get a number."""
    names: dict[str, Attack] = {}
    for attack in attacks:
        name = getattr(attack, "name", None)
        name = name if isinstance(name, str) else getattr(attack, "__name__", type(attack).__name__).lower()
        number = 1 + sum(other == name or other.rpartition("-")[0] == name for other in names)
        names[f"{name}-{number}" if number > 1 else name] = attack
    return names
