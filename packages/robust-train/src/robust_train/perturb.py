"""How an attack is run inside of training: on the bare module, in a chosen mode, without a trace."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from robust_attacks import FGSM, L1, L2, NFGSM, PGD, ImageRandom, Linf, Threat
from robust_attacks.losses import Loss
from robust_optim import frozen_batch_norm
from torch import Tensor, nn
from torch.nn import functional

from robust_train.settings import AttackSettings, BatchNorm, EvaluationSettings, FGSMAttack, NFGSMAttack, PGDAttack

_THREATS: dict[str, type[Linf] | type[L2] | type[L1]] = {"Linf": Linf, "L2": L2, "L1": L1}


@dataclass(frozen=True)
class Strength:
    """How much of an attack is used, for a warm-up: shares of its radius and of its step, in [0, 1].

    A step that an attack has not been given, but derives from its radius, goes with the radius.
    """

    radius: float = 1.0
    step: float = 1.0


FULL = Strength()
_LEAST_STEP = torch.finfo(torch.float32).tiny  # for none at all, which attacks refuse


class Attack(Protocol):
    """An attack of robust-attacks, or anything called like one."""

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None
    ) -> Tensor:
        """Perturb `images` (N, C, H, W) in [0, 1] with labels (N,)."""
        ...


def build_threat(norm: str, eps: float, start: str = "uniform") -> Threat:
    """The ball of radius `eps` (in units of [0, 1] pixels) in the norm "Linf", "L2" or "L1".

    With the start "near", attacks begin beside the image, as TRADES and MART have it.
    """
    kind = {"Linf": _NearLinf, "L2": _NearL2}[norm] if start == "near" else _THREATS[norm]
    threat: Threat = kind(eps=eps)
    return threat


class _Near:
    """Random starts at x + 0.001 N(0, 1), cut to the box and the ball."""

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        noise = random.normal(use, images.shape[1:], restart=restart).to(images)
        return self.project(images, images + 1e-3 * noise)  # type: ignore[attr-defined, no-any-return]


@dataclass(frozen=True, kw_only=True)
class _NearLinf(_Near, Linf):
    pass


@dataclass(frozen=True, kw_only=True)
class _NearL2(_Near, L2):
    pass


def build_attack(settings: AttackSettings) -> FGSM | NFGSM | PGD:
    """The attack of robust-attacks that the settings describe."""
    step = settings.relative_step * settings.eps
    match settings:
        case NFGSMAttack():
            return NFGSM(threat=Linf(eps=settings.eps), noise=settings.noise, step_size=step)
        case FGSMAttack():
            threat = build_threat(settings.norm, settings.eps, settings.start)
            return FGSM(threat=threat, step_size=step, random_start=settings.start != "image")
        case PGDAttack():
            threat = build_threat(settings.norm, settings.eps, settings.start)
            return PGD(threat=threat, steps=settings.steps, step_size=step, random_start=settings.start != "image")


def build_evaluation_attack(settings: EvaluationSettings, training: AttackSettings | None) -> PGD:
    """The attack that judges the held-out images; its threat is that of the training attack where it states none."""
    norm = settings.norm or (training.norm if training else "Linf")
    eps = settings.eps if settings.eps is not None or training is None else training.eps
    if eps is None:
        raise ValueError("evaluation.eps must be given: there is no training attack to take it from")
    step = settings.relative_step * eps
    return PGD(threat=build_threat(norm, eps), steps=settings.steps, step_size=step, restarts=settings.restarts)


@contextlib.contextmanager
def attack_mode(model: nn.Module, batch_norm: BatchNorm) -> Iterator[None]:
    """Put `model` into the mode that an attack sees, and give every module its own mode back, also after an error.

    - `eval`: running statistics, no dropout, no stochastic depth; buffers do not move. (TRADES, MART, EasyRobust.)
    - `train`: the mode as it is, so batch norms in training use the statistics of the batch; their running mean,
      variance and count stay bit-equal. (Wang et al., ICML 2023, arXiv:2302.04638.)
    - `train_moving`: the mode as it is, and every pass of the attack moves the running statistics. (Fast AT, Free AT.)

    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        if batch_norm == "eval":
            model.eval()
        with frozen_batch_norm(model) if batch_norm == "train" else contextlib.nullcontext():
            yield
    finally:
        for module, training in modes:
            module.training = training


def perturb(
    attack: Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    random: ImageRandom | None = None,
    *,
    batch_norm: BatchNorm = "eval",
    precision: torch.dtype | None = None,
    loss: Loss | None = None,
    strength: Strength = FULL,
    exact_passes: int = 0,
) -> Tensor:
    """Make the adversarial images of one training step; no gradient reaches the weights.

    The attack sees a plain function, so that a wrapper for distributed training is never called (an attack through it
    would talk to the other ranks at every step) and the mode of batch norm is decided here. Every pass opens its own
    autocast: inside one long autocast, weights that were changed in place would not be seen.

    Args:
        attack: e.g. `PGD(...)`.
        model: the bare module: images in [0, 1] to logits (N, K).
        images: (N, C, H, W) in [0, 1].
        labels: classes, int64 (N,), or probabilities (N, K) of mixed images: then the attack increases the
            cross-entropy with these.
        random: the images' random numbers; None draws a seed from torch's CPU generator.
        batch_norm: see `attack_mode`.
        precision: dtype of automatic mixed precision in the attack's passes; None computes in the dtype of the weights.
        loss: what the attack increases instead of its own loss.
        strength: shares of the attack's radius and step; at radius 0 the images come back as they are.
        exact_passes: how many of the attack's passes, from the first, are in the dtype of the weights in spite of
            `precision`.
    """
    if strength.radius == 0:
        return images
    if strength != FULL:
        attack = weakened(attack, strength)
    if labels.is_floating_point():
        loss, labels = loss or _soft_cross_entropy(labels), labels.argmax(1)
    if loss is not None:
        attack = dataclasses.replace(attack, loss=loss)  # type: ignore[type-var]
    device = images.device.type
    passes = itertools.count()

    def logits(candidates: Tensor) -> Tensor:
        mixed = precision is not None and next(passes) >= exact_passes
        with torch.autocast(device, precision, enabled=mixed):
            output: Tensor = model(candidates)
        return output.float() if mixed else output

    with attack_mode(model, batch_norm):
        return attack(logits, images, labels, random=random)  # type: ignore[arg-type]


def weakened(attack: Any, strength: Strength) -> Any:
    """The attack with a smaller radius, and with a smaller step if it has been given one; see `Strength`."""
    changes = {"threat": dataclasses.replace(attack.threat, eps=attack.threat.eps * strength.radius)}
    if attack.step_size is not None:
        changes["step_size"] = max(attack.step_size * strength.step, _LEAST_STEP)
    return dataclasses.replace(attack, **changes)


def _soft_cross_entropy(labels: Tensor) -> Loss:
    """The cross-entropy with the probabilities of a batch, whose order an attack without restarts keeps."""

    def losses(logits: Tensor, _: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels.to(logits.dtype), reduction="none")

    return losses
