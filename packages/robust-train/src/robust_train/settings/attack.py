"""How images are attacked in training."""

from dataclasses import dataclass
from typing import Literal

from robust_train.settings.require import require

Norm = Literal["Linf", "L2", "L1"]
BatchNorm = Literal["eval", "train", "train_moving"]
Start = Literal["image", "uniform", "near"]
WarmUp = Literal["none", "radius", "radius_and_step", "step"]


def check_eps(norm: str, eps: float) -> None:
    """Raise a ValueError unless `eps` is a radius in units of [0, 1] pixels."""
    require(eps > 0, f"eps must be positive, got {eps}")
    if norm == "Linf":
        require(eps <= 1, f"eps is in units of [0, 1] pixels and at most 1 for Linf, got {eps}: write 8/255 and not 8")


@dataclass(frozen=True, kw_only=True)
class _GradientAttack:
    """What attacks by gradient steps share.

    Args:
        name: chooses the attack.
        norm: of the ball around an image.
        eps: its radius, in units of [0, 1] pixels.
        relative_step: length of one step as a multiple of eps, so that it follows eps.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
        warmup: what of the attack grows from nothing in the first epochs: "none" of it; the "radius", the step keeping
            its length (Debenedetti et al., SaTML 2023, arXiv:2209.07399); "radius_and_step"; or the "step" (ARES 2,
            arXiv:2302.14301).
        warmup_epochs: how many epochs, 0 without a warm-up.
        warmup_per: grow once per "epoch", counted from 0, so that the first epoch has none of it; or at every "update".
    """

    name: str
    norm: Norm
    eps: float
    relative_step: float
    batch_norm: BatchNorm
    autocast: bool
    warmup: WarmUp
    warmup_epochs: float
    warmup_per: Literal["epoch", "update"]

    def __post_init__(self) -> None:
        check_eps(self.norm, self.eps)
        require(self.relative_step > 0, f"relative_step must be positive, got {self.relative_step}")
        epochs = self.warmup_epochs
        if self.warmup == "none":
            require(epochs == 0, f"warmup_epochs must be 0 without a warm-up, got {epochs}")
        else:
            require(epochs > 0, f"warmup_epochs must be positive for a warm-up of the {self.warmup}, got {epochs}")


@dataclass(frozen=True, kw_only=True)
class FGSMAttack(_GradientAttack):
    """One gradient step for every image: `robust_attacks.FGSM`.

    Args:
        name: "fgsm".
        start: the "image" itself, a "uniform" point of the ball (with 1.25 steps this is FGSM-RS), or "near" the image,
            at normal noise of 0.001 (TRADES and MART).
    """

    name: Literal["fgsm"]
    start: Start

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_start(self.norm, self.start)


@dataclass(frozen=True, kw_only=True)
class NFGSMAttack(_GradientAttack):
    """One gradient step from strong noise, not cut to the ball: `robust_attacks.NFGSM`, in Linf.

    The paper's `relative_step` is 1.

    Args:
        name: "n_fgsm".
        norm: "Linf", of the ball that is trained for.
        noise: half the width of the uniform noise as a multiple of eps, 2 in the paper.
    """

    name: Literal["n_fgsm"]
    norm: Literal["Linf"]
    noise: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise > 0, f"noise must be positive, got {self.noise}")


@dataclass(frozen=True, kw_only=True)
class PGDAttack(_GradientAttack):
    """Several gradient steps, projected back after each: `robust_attacks.PGD`; the last iterate is trained on.

    Args:
        name: "pgd".
        steps: gradient steps, each a forward and a backward pass.
        start: the "image" itself, a "uniform" point of the ball, or "near" the image, at normal noise of 0.001 (TRADES
            and MART).
    """

    name: Literal["pgd"]
    steps: int
    start: Start

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_start(self.norm, self.start)
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")


AttackSettings = FGSMAttack | NFGSMAttack | PGDAttack


def _check_start(norm: str, start: str) -> None:
    near = start != "near" or norm in ("Linf", "L2")
    require(near, f"start near the image is for Linf and L2, got {norm}")
