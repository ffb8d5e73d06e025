"""How images are attacked in training."""

from dataclasses import dataclass
from typing import Literal

from robust_train.settings.require import require

Norm = Literal["Linf", "L2", "L1"]
BatchNorm = Literal["eval", "train", "train_moving"]
Start = Literal["image", "uniform", "near"]
WarmUp = Literal["none", "radius", "radius_and_step", "step"]


def _check_attack(settings: "AttackSettings", start: str = "uniform") -> None:
    check_eps(settings.norm, settings.eps)
    require(settings.relative_step > 0, f"relative_step must be positive, got {settings.relative_step}")
    near = start != "near" or settings.norm in ("Linf", "L2")
    require(near, f"start near the image is for Linf and L2, got {settings.norm}")
    epochs = settings.warmup_epochs
    if settings.warmup == "none":
        require(epochs == 0, f"warmup_epochs must be 0 without a warm-up, got {epochs}")
    else:
        require(epochs > 0, f"warmup_epochs must be positive for a warm-up of the {settings.warmup}, got {epochs}")


def check_eps(norm: str, eps: float) -> None:
    """Raise a ValueError unless `eps` is a radius in units of [0, 1] pixels."""
    require(eps > 0, f"eps must be positive, got {eps}")
    if norm == "Linf":
        require(eps <= 1, f"eps is in units of [0, 1] pixels and at most 1 for Linf, got {eps}: write 8/255 and not 8")


@dataclass(frozen=True, kw_only=True)
class FGSMAttack:
    """One gradient step for every image: `robust_attacks.FGSM`.

    Args:
        name: "fgsm".
        norm: of the ball around an image.
        eps: its radius, in units of [0, 1] pixels.
        relative_step: length of the step as a multiple of eps, so that it follows eps.
        start: the "image" itself, a "uniform" point of the ball (with 1.25 steps this is FGSM-RS), or "near" the image,
            at normal noise of 0.001.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
        warmup: what of the attack grows from nothing in the first epochs: "none" of it; the "radius", the step keeping
            its length (Debenedetti et al., SaTML 2023, arXiv:2209.07399); "radius_and_step"; or the "step" (ARES 2,
            arXiv:2302.14301).
        warmup_epochs: how many epochs, 0 without a warm-up.
        warmup_per: grow once per "epoch", counted from 0, so that the first epoch has none of it; or at every "update".
    """

    name: Literal["fgsm"]
    norm: Norm
    eps: float
    relative_step: float
    start: Start
    batch_norm: BatchNorm
    autocast: bool
    warmup: WarmUp
    warmup_epochs: float
    warmup_per: Literal["epoch", "update"]

    def __post_init__(self) -> None:
        _check_attack(self, self.start)


@dataclass(frozen=True, kw_only=True)
class NFGSMAttack:
    """One gradient step from strong noise, not cut to the ball: `robust_attacks.NFGSM`, in Linf.

    Args:
        name: "n_fgsm".
        norm: "Linf".
        eps: radius of the ball that is trained for, in units of [0, 1] pixels.
        relative_step: length of the step as a multiple of eps, 1 in the paper.
        noise: half the width of the uniform noise as a multiple of eps, 2 in the paper.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
        warmup: what of the attack grows from nothing in the first epochs: "none" of it; the "radius", the step keeping
            its length (Debenedetti et al., SaTML 2023, arXiv:2209.07399); "radius_and_step"; or the "step" (ARES 2,
            arXiv:2302.14301).
        warmup_epochs: how many epochs, 0 without a warm-up.
        warmup_per: grow once per "epoch", counted from 0, so that the first epoch has none of it; or at every "update".
    """

    name: Literal["n_fgsm"]
    norm: Literal["Linf"]
    eps: float
    relative_step: float
    noise: float
    batch_norm: BatchNorm
    autocast: bool
    warmup: WarmUp
    warmup_epochs: float
    warmup_per: Literal["epoch", "update"]

    def __post_init__(self) -> None:
        _check_attack(self)
        require(self.noise > 0, f"noise must be positive, got {self.noise}")


@dataclass(frozen=True, kw_only=True)
class PGDAttack:
    """Several gradient steps, projected back after each: `robust_attacks.PGD`; the last iterate is trained on.

    Args:
        name: "pgd".
        norm: of the ball around an image.
        eps: its radius, in units of [0, 1] pixels.
        steps: gradient steps, each a forward and a backward pass.
        relative_step: length of one step as a multiple of eps, so that it follows eps.
        start: the "image" itself, a "uniform" point of the ball, or "near" the image, at normal noise of 0.001 (TRADES
            and MART).
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
        warmup: what of the attack grows from nothing in the first epochs: "none" of it; the "radius", the step keeping
            its length (Debenedetti et al., SaTML 2023, arXiv:2209.07399); "radius_and_step"; or the "step" (ARES 2,
            arXiv:2302.14301).
        warmup_epochs: how many epochs, 0 without a warm-up.
        warmup_per: grow once per "epoch", counted from 0, so that the first epoch has none of it; or at every "update".
    """

    name: Literal["pgd"]
    norm: Norm
    eps: float
    steps: int
    relative_step: float
    start: Start
    batch_norm: BatchNorm
    autocast: bool
    warmup: WarmUp
    warmup_epochs: float
    warmup_per: Literal["epoch", "update"]

    def __post_init__(self) -> None:
        _check_attack(self, self.start)
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")


AttackSettings = FGSMAttack | NFGSMAttack | PGDAttack
