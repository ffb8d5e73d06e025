"""Optimizers that look at the loss around the weights."""

from dataclasses import dataclass
from typing import Literal

from robust_train.settings.require import require, require_not_negative

Sync = Literal["per_rank", "global"]


@dataclass(frozen=True, kw_only=True)
class SAMSettings:
    """`robust_optim.SAM` around the optimizer, also adaptive (ASAM) and friendly (F-SAM).

    Args:
        name: "sam".
        rho: radius of the neighbourhood.
        adaptive: scale it with the weights.
        eta: added to the weights there.
        friendly: share of the mean gradient that is taken out of the direction, 0 for none.
        decay: of that mean.
        sync: over ranks, "per_rank" or "global".
    """

    name: Literal["sam"]
    rho: float
    adaptive: bool
    eta: float
    friendly: float
    decay: float
    sync: Sync

    def __post_init__(self) -> None:
        require_not_negative(self, "rho", "eta")
        require(0 <= self.decay < 1, f"decay must lie in [0, 1), got {self.decay}")


@dataclass(frozen=True, kw_only=True)
class GSAMSettings:
    """`robust_optim.GSAM` around the optimizer.

    Args:
        name: "gsam".
        rho: radius of the neighbourhood, at the highest learning rate.
        rho_min: radius at the learning rate `lr_min`; null keeps rho.
        lr_min: the lowest learning rate of the schedule.
        alpha: weight of the orthogonal part.
        sync: over ranks, "per_rank" or "global".
    """

    name: Literal["gsam"]
    rho: float
    rho_min: float | None
    lr_min: float
    alpha: float
    sync: Sync

    def __post_init__(self) -> None:
        require_not_negative(self, "rho", "alpha", "lr_min")
        require(self.rho_min is None or self.rho_min >= 0, f"rho_min must not be negative, got {self.rho_min}")


@dataclass(frozen=True, kw_only=True)
class ESAMSettings:
    """`robust_optim.ESAM` around the optimizer: part of the weights, part of the images.

    Args:
        name: "esam".
        rho: radius of the neighbourhood.
        beta: share of the weights that are moved.
        gamma: share of the images that make the step.
        sync: over ranks, "per_rank" or "global".
    """

    name: Literal["esam"]
    rho: float
    beta: float
    gamma: float
    sync: Sync

    def __post_init__(self) -> None:
        require_not_negative(self, "rho")
        for setting in ("beta", "gamma"):
            share = getattr(self, setting)
            require(0 < share <= 1, f"{setting} must lie in (0, 1], got {share}")


@dataclass(frozen=True, kw_only=True)
class LookSAMSettings:
    """`robust_optim.LookSAM` around the optimizer: a second pass in every k-th update.

    Args:
        name: "looksam".
        rho: radius of the neighbourhood.
        k: updates from one second pass to the next.
        alpha: weight of the remembered direction.
        sync: over ranks, "per_rank" or "global".
    """

    name: Literal["looksam"]
    rho: float
    k: int
    alpha: float
    sync: Sync

    def __post_init__(self) -> None:
        require_not_negative(self, "rho", "alpha")
        require(self.k >= 1, f"k must be at least 1, got {self.k}")


@dataclass(frozen=True, kw_only=True)
class AWPSettings:
    """`robust_optim.AWP` around the optimizer: adversarial weight perturbation.

    Args:
        name: "awp".
        gamma: length of the perturbation relative to that of the weights, 0.01 for adversarial training, 0.005 for
            TRADES.
        start: epochs without it.
        order: of restoring and stepping, "step_first" as published.
        sync: over ranks, "per_rank" or "global".
    """

    name: Literal["awp"]
    gamma: float
    start: float
    order: Literal["restore_first", "step_first"]
    sync: Sync

    def __post_init__(self) -> None:
        require_not_negative(self, "gamma", "start")


SharpnessSettings = SAMSettings | GSAMSettings | ESAMSettings | LookSAMSettings | AWPSettings
