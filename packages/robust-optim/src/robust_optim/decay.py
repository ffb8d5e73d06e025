"""Rules for the decay of a weight average: which share of the old average stays at its t-th update, t = 0, 1, ..."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Decay = Callable[[int], float]
"""The share of the old average, in [0, 1], that stays at the averaged update number t, counted from 0."""


@dataclass(frozen=True)
class RatioWarmUp:
    """An exponential average that forgets its beginning: d_t = min(decay, (1 + t) / (10 + t)).

    The rule of TensorFlow's `ExponentialMovingAverage` with `num_updates`, used by Wang et al., "Better Diffusion
    Models Further Improve Adversarial Training", ICML 2023, arXiv:2302.04638, with decay 0.995. It reaches 0.99 at
    t = 890, 0.999 at t = 8990.

    Args:
        decay: where the rise ends, in [0, 1].

    Raises:
        ValueError: if `decay` is out of range.

    Examples:
        >>> rule = RatioWarmUp(0.995)
        >>> rule(0), rule(8), rule(10_000)
        (0.1, 0.5, 0.995)
    """

    decay: float

    def __post_init__(self) -> None:
        check_decay(self.decay)

    def __call__(self, t: int) -> float:
        """The decay at update `t`."""
        return min(self.decay, (1 + t) / (10 + t))


@dataclass(frozen=True)
class PowerWarmUp:
    """An exponential average that forgets its beginning: d_t = min(decay, 1 - (1 + t / gamma) ** -power).

    The rule of timm's `ModelEmaV3` with `use_warmup=True`, by Katherine Crowson: update number t = 0 copies, as
    timm's does at step 1. With power 2/3 the decay reaches 0.999 at t = 31,600; with 3/4 at t = 10,000.

    Args:
        decay: where the rise ends, in [0, 1].
        gamma: positive; larger values make the rise slower.
        power: positive; larger values make it faster. 1 gives equal weights as long as `decay` is not reached.

    Raises:
        ValueError: if a setting is out of range.

    Examples:
        >>> rule = PowerWarmUp(0.9, power=0.5)
        >>> rule(0), rule(3), rule(1000)
        (0.0, 0.5, 0.9)
    """

    decay: float
    gamma: float = 1.0
    power: float = 2 / 3

    def __post_init__(self) -> None:
        check_decay(self.decay)
        if not (self.gamma > 0 and self.power > 0):
            raise ValueError(f"gamma and power must be positive, got {self.gamma} and {self.power}")

    def __call__(self, t: int) -> float:
        """The decay at update `t`."""
        return min(self.decay, 1 - math.pow(1 + t / self.gamma, -self.power))


def equal_weights(t: int) -> float:
    """The mean of all averaged weights, as in stochastic weight averaging: d_t = t / (t + 1).

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, arXiv:1803.05407.
    """
    return t / (t + 1)


def check_decay(decay: float) -> float:
    """Give `decay` back if it is a share.

    Raises:
        ValueError: if it does not lie in [0, 1].
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"a decay is the share of the old average that stays and lies in [0, 1], got {decay}")
    return decay
