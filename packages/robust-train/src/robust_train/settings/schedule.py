"""How the learning rate moves."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from robust_train.settings.require import require


@dataclass(frozen=True, kw_only=True)
class OneCycleSchedule:
    """The learning rate rises to its highest value and falls again, per update.

    Smith and Topin, "Super-convergence", 2018, arXiv:1708.07120; the same curve as
    `torch.optim.lr_scheduler.OneCycleLR` with two phases, without its cycle of momentum.

    Args:
        name: "onecycle".
        peak: share of all updates before the highest learning rate, in (0, 1).
        start: share of the highest learning rate at the first update, in [0, 1].
        end: share of it at the last update, in [0, 1].
        shape: of both flanks.
    """

    name: Literal["onecycle"]
    peak: float
    start: float
    end: float
    shape: Literal["cosine", "linear"]

    def __post_init__(self) -> None:
        require(0 < self.peak < 1, f"peak must lie in (0, 1), got {self.peak}")
        for setting in ("start", "end"):
            share = getattr(self, setting)
            require(0 <= share <= 1, f"{setting} must be a share of lr, in [0, 1], got {share}")


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """A linear warm-up, then half a cosine down, per update.

    Args:
        name: "cosine".
        warmup_epochs: length of the warm-up, less than the recipe's epochs.
        start: share of the highest learning rate at the first update, in [0, 1]; needs a warm-up if it is not 1.
        end: share of it at the end, in [0, 1].
    """

    name: Literal["cosine"]
    warmup_epochs: float
    start: float
    end: float

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, f"warmup_epochs must not be negative, got {self.warmup_epochs}")
        for setting in ("start", "end"):
            share = getattr(self, setting)
            require(0 <= share <= 1, f"{setting} must be a share of lr, in [0, 1], got {share}")
        require(self.warmup_epochs > 0 or self.start == 1, "start has no effect without warmup_epochs: set it to 1")


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """The learning rate is multiplied by a factor at given epochs.

    Args:
        name: "steps".
        milestones: the epochs, strictly rising, above 0 and below the recipe's epochs.
        factor: in (0, 1).
    """

    name: Literal["steps"]
    milestones: tuple[float, ...]
    factor: float

    def __post_init__(self) -> None:
        stones = self.milestones
        rising = bool(stones) and stones[0] > 0 and all(one < next_ for one, next_ in pairwise(stones))
        require(rising, f"milestones must be strictly rising epochs above 0, at least one, got {list(stones)}")
        require(0 < self.factor < 1, f"factor must lie in (0, 1), got {self.factor}")


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule:
    """The learning rate stays.

    Args:
        name: "constant".
    """

    name: Literal["constant"]
