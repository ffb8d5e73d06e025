"""How an attack is run inside of training: on the bare module, in a chosen mode, without a trace."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from robust_attacks import FGSM, L1, L2, PGD, ImageRandom, Linf, Threat
from robust_optim import frozen_batch_norm
from torch import Tensor, nn

from robust_train.settings import BatchNorm, EvaluationSettings, FGSMAttack, PGDAttack

_THREATS: dict[str, type[Linf] | type[L2] | type[L1]] = {"Linf": Linf, "L2": L2, "L1": L1}


class Attack(Protocol):
    """An attack of robust-attacks, or anything called like one."""

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None
    ) -> Tensor:
        """Perturb `images` (N, C, H, W) in [0, 1] with labels (N,)."""
        ...


def build_threat(norm: str, eps: float) -> Threat:
    """The ball of radius `eps` (in units of [0, 1] pixels) in the norm "Linf", "L2" or "L1"."""
    return _THREATS[norm](eps=eps)


def build_attack(settings: FGSMAttack | PGDAttack) -> FGSM | PGD:
    """The attack of robust-attacks that the settings describe."""
    threat, step = build_threat(settings.norm, settings.eps), settings.relative_step * settings.eps
    if isinstance(settings, FGSMAttack):
        return FGSM(threat=threat, step_size=step, random_start=settings.random_start)
    return PGD(threat=threat, steps=settings.steps, step_size=step, random_start=settings.random_start)


def build_evaluation_attack(settings: EvaluationSettings, training: FGSMAttack | PGDAttack | None) -> PGD:
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
) -> Tensor:
    """Make the adversarial images of one training step; no gradient reaches the weights.

    The attack sees a plain function, so that a wrapper for distributed training is never called (an attack through it
    would talk to the other ranks at every step) and the mode of batch norm is decided here. Every pass opens its own
    autocast: inside one long autocast, weights that were changed in place would not be seen.

    Args:
        attack: e.g. `PGD(...)`.
        model: the bare module: images in [0, 1] to logits (N, K).
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        random: the images' random numbers; None draws a seed from torch's CPU generator.
        batch_norm: see `attack_mode`.
        precision: dtype of automatic mixed precision in the attack's passes; None computes in the dtype of the weights.
    """
    device = images.device.type

    def logits(candidates: Tensor) -> Tensor:
        with torch.autocast(device, precision, enabled=precision is not None):
            output: Tensor = model(candidates)
        return output if precision is None else output.float()

    with attack_mode(model, batch_norm):
        return attack(logits, images, labels, random=random)  # type: ignore[arg-type]
