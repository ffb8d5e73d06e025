"""Transfer attacks: craft images on a surrogate, test other models on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_call, check_labels, check_logits
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_number
from robust_attacks._transfer_report import TransferReport as TransferReport
from robust_attacks._transfer_report import TransferRow as TransferRow
from robust_attacks.losses import cross_entropy, predicted, succeeded, targeted
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf

Attack = Callable[..., Tensor]
"""Called as `attack(model, images, labels, random=...) -> images`."""

RELATIVE_EPS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1)
"""The radii of the paper."""

_ANY = Linf(eps=1.0)
_TOWARDS = targeted(cross_entropy)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crafted:
    """What a `TransferAttack` made on its surrogate.

    Args:
        images: (N, C, H, W), what to show to other models.
        targets: the class that each image was pushed to, int64 (N,).
        reached: whether the surrogate predicts it, bool (N,).
    """

    images: Tensor
    targets: Tensor
    reached: Tensor


@dataclass(frozen=True, kw_only=True)
class TransferAttack:
    """Push each image on a surrogate model to a random wrong class, and stop when it is there.

    Orhan, "Robustness properties of Facebook's ResNeXt WSL models", 2019, arXiv:1907.07640. From a uniform point of the
    Linf ball, sign steps down the cross-entropy of a class that the image draws from the K - 1 wrong ones; an image
    stops at the first iterate, the start included, that the surrogate predicts as its target. One that never does is
    handed back clean, as in the paper, or with `unreached="last"` as its last iterate. Images that the surrogate takes
    for their targets from the first come back clean, too. Target and start are the same at every radius.

    An image costs at most `steps + 2` forward and `steps` backward passes of the surrogate; on the CPU it leaves the
    batch when it stops.

    Args:
        relative_eps: radius of the Linf ball relative to `measure`, 0 <= r <= 1.
        measure: "image": the radius is r times the largest pixel of the image (the paper); "range": r times 1, the
            range that pixels may have (its scripts).
        steps: at most, >= 1.
        step_size: length of a step in units of [0, 1] pixels; the paper has 2 / 225, its scripts 2 / 255.
        unreached: what becomes of an image that misses its target: "clean" or "last".

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if a setting is out of range.

    Examples:
        >>> surrogate = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 2 - images.sum(dim=(1, 2, 3))), dim=1)
        >>> attack = TransferAttack(relative_eps=0.1)
        >>> attack(surrogate, torch.full((1, 1, 1, 2), 0.52), torch.tensor([0]), random=ImageRandom(seed=0)).sum() < 1
        tensor(True)
    """

    relative_eps: float = 0.04
    measure: Literal["image", "range"] = "image"
    steps: int = 10
    step_size: float = 2 / 225
    unreached: Literal["clean", "last"] = "clean"

    def __post_init__(self) -> None:
        check_number("TransferAttack", "relative_eps", self.relative_eps, most=1)
        check_count("TransferAttack", "steps", self.steps)
        check_number("TransferAttack", "step_size", self.step_size, open_below=True)
        _check_choice("measure", self.measure, ("image", "range"))
        _check_choice("unreached", self.unreached, ("clean", "last"))

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """`craft`, but only the images."""
        objective, crafted = self._craft(model, images, labels, random)
        return crafted.images if objective is None else objective.finish(self.threat(images), crafted.images)

    def craft(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Crafted:
        """Make images on a surrogate and say which of them it takes for their targets; nothing given changes.

        Args:
            model: the surrogate: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        objective, crafted = self._craft(model, images, labels, random)
        if objective is None:
            return crafted
        return replace(crafted, images=objective.finish(self.threat(images), crafted.images))

    def threat(self, images: Tensor) -> Linf:
        """The ball of every image."""
        if self.measure == "range":
            return Linf(eps=self.relative_eps)
        return Linf(eps=(self.relative_eps * images.detach().double().amax(dim=(1, 2, 3))).tolist())

    def _craft(
        self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom | None
    ) -> tuple[Objective | None, Crafted]:
        """What is crafted, and the objective that is still to check it; None where there are no images."""
        random = check_call(_ANY, images, labels, random)
        if not len(images):
            return None, Crafted(images=images.detach().clone(), targets=labels.clone(), reached=labels.bool())
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            with torch.no_grad():
                logits = model(images)
            check_logits(logits, images)
            check_labels(labels, images, classes=logits.shape[1])
            targets = random.integers("transfer/target", logits.shape[1] - 1, 1)[:, 0]
            targets += targets >= labels
            # A plain function: it is the clean images, judged here, that decide who need not be attacked.
            objective = Objective(model, lambda logits, labels: _TOWARDS(logits, labels), images)
            settled = succeeded(_TOWARDS, logits, targets)
            found, reached = self._climb(objective, self.threat(images), images, targets, random, settled)
        return objective, Crafted(images=found, targets=targets, reached=reached)

    def _climb(
        self, objective: Objective, threat: Linf, images: Tensor, targets: Tensor, random: ImageRandom, reached: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where each image ends, and whether it reached its target; the `reached` given are not attacked."""
        found, points = images.clone(), threat.sample(images, random, use="transfer/start")
        project, rows = threat.projector(images), torch.arange(len(images), device=images.device)
        for step in range(self.steps + 1):
            if _host.can_look(reached):  # else nobody leaves: finding out who has stopped would wait for the device
                stay = (~reached[rows]).nonzero()[:, 0]
                if not len(stay):
                    break
                if len(stay) < len(rows):
                    rows, points = rows[stay], points[stay]
                    project = threat.select(rows).projector(images[rows])
                    objective.focus(rows)
            if step < self.steps:
                gradient, logits = objective.gradient(points, targets[rows])
            else:
                with torch.no_grad():
                    gradient, logits = torch.zeros_like(points), objective.logits(points, targets[rows])
            now = succeeded(_TOWARDS, logits, targets[rows]) & ~reached[rows]
            keep = now if self.unreached == "clean" else ~reached[rows]
            found[rows] = torch.where(keep[:, None, None, None], points, found[rows])
            reached[rows] |= now
            points = project(points + self.step_size * gradient.sign())
        return found, reached


def _check_choice(name: str, given: object, known: Sequence[str]) -> None:
    if given not in known:
        raise ValueError(f"TransferAttack: {name} must be {' or '.join(map(repr, known))}, got {given!r}")


def transfer(
    surrogate: Model,
    models: Mapping[str, Model],
    images: Tensor,
    labels: Tensor,
    *,
    relative_eps: Sequence[float] | None = None,
    attack: Attack | Mapping[str, Attack] | None = None,
    random: ImageRandom | None = None,
    batch_size: int = 128,
) -> TransferReport:
    """Craft images on a surrogate and report how other models do on them.

    Orhan, arXiv:1907.07640, with the attack left out: one row per relative radius. With attacks of your own, one row
    per attack, e.g. `attack={"PGD 8/255": PGD(threat=Linf(eps=8 / 255))}`. Accuracies are over all images, also those
    that a model gets wrong when clean; logits that are not finite are wrong.

    Args:
        surrogate: the model that the images are crafted on: images (N, C, H, W) in [0, 1] to logits (N, K).
        models: the models to test, by name; the surrogate may be among them.
        images: float32 or float64 (N, C, H, W) in [0, 1], on the device of all models.
        labels: true classes, int64 (N,).
        relative_eps: radii for a `TransferAttack`, each in 0..1; None means 0.01, 0.02, 0.04, 0.06, 0.08, 0.1.
        attack: a `TransferAttack`, whose radius is replaced by each of `relative_eps`; or any attack, or attacks by
            name; None means `TransferAttack()`.
        random: the images' random streams; None draws one seed from torch's CPU generator.
        batch_size: how many images are crafted and judged at once.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if shapes or values are wrong, there are no images, models or radii, or radii meet an attack that
            has none.
    """
    random = check_call(_ANY, images, labels, random)
    check_count("transfer", "batch_size", batch_size)
    if not isinstance(models, Mapping):
        raise TypeError(
            f'models must be a mapping from names to models, as {{"vit": model}}, got {type(models).__name__}'
        )
    if not models or not len(images):
        raise ValueError(f"nothing to evaluate: got {len(models)} models and {len(images)} images")
    attacks = _attacks(attack, relative_eps)
    everyone = {("model", name): model for name, model in models.items()} | {("surrogate", ""): surrogate}
    clean = dict.fromkeys(everyone, 0)
    right = {name: dict.fromkeys(everyone, 0) for name in attacks}
    reached = dict.fromkeys(attacks, 0)
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        some, truth, streams = images[rows], labels[rows], random[rows]
        for who, model in everyone.items():
            clean[who] += _right(model, some, truth, random.seed)
        for name, made_by in attacks.items():
            if isinstance(made_by, TransferAttack):
                crafted = made_by.craft(surrogate, some, truth, random=streams)
                made, hits = crafted.images, int(crafted.reached.sum())
            else:
                made, hits = made_by(surrogate, some, truth, random=streams), 0
            reached[name] += hits
            for who, model in everyone.items():
                right[name][who] += _right(model, made, truth, random.seed)
    count = len(images)

    def row(name: str, made_by: Attack) -> TransferRow:
        ours = isinstance(made_by, TransferAttack)
        return TransferRow(
            attack=name,
            settings=asdict(made_by) if isinstance(made_by, TransferAttack) else {},
            surrogate_success=(reached[name] if ours else count - right[name]["surrogate", ""]) / count,
            accuracy={model: right[name]["model", model] / count for model in models},
        )

    return TransferReport(
        count=count,
        seed=random.seed,
        surrogate_accuracy=clean["surrogate", ""] / count,
        clean_accuracy={model: clean["model", model] / count for model in models},
        rows=tuple(row(name, made_by) for name, made_by in attacks.items()),
    )


def _attacks(attack: Any, relative_eps: Sequence[float] | None) -> dict[str, Attack]:
    """The attacks of a report, by the name of their row."""
    if attack is None or isinstance(attack, TransferAttack):
        base = TransferAttack() if attack is None else attack
        radii = RELATIVE_EPS if relative_eps is None else tuple(relative_eps)
        if not radii:
            raise ValueError("relative_eps must hold at least one radius, as (0.01, 0.04)")
        return {f"r = {radius:g}": replace(base, relative_eps=radius) for radius in radii}
    if relative_eps is not None:
        raise ValueError(
            "relative_eps belongs to TransferAttack: leave it out, and give other attacks with the radii that they "
            'have, as attack={"PGD 4/255": PGD(threat=Linf(eps=4 / 255))}'
        )
    attacks = dict(attack) if isinstance(attack, Mapping) else {type(attack).__name__: attack}
    wrong = [name for name, one in attacks.items() if isinstance(one, type) or not callable(one)]
    if wrong or not attacks:
        raise TypeError(f"attack must be an attack, or at least one by its name, got {attack!r}")
    return attacks


def _right(model: Model, images: Tensor, labels: Tensor, seed: int) -> int:
    """How many images a model gets right; nothing in it changes."""
    with pristine(model, images, seed) as model, torch.no_grad():
        logits = model(images.clone())
    check_logits(logits, images)
    return int(((predicted(logits) == labels) & logits.isfinite().all(dim=1)).sum())
