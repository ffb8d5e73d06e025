"""The attacks of the benchmarks, as settings that a user may change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from robust_attacks import L1, L2, PGD, Linf, Threat, auto_attack

from robust_bench.conditions import Attacked, Suite

Norm = Literal["Linf", "L2", "L1"]
THREATS: Mapping[str, Callable[..., Threat]] = {"Linf": Linf, "L2": L2, "L1": L1}
"""By the name of the norm."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """PGD at several sizes of the perturbation.

    Args:
        norm: of the perturbation.
        eps: its largest sizes, or one, in units of [0, 1] pixels; None means the benchmark's own, which are for Linf.
        steps: gradient steps.
        restarts: how often an image is attacked from a new random start; the worst counts.
        step_size: length of a step; None means 2.5 eps / steps.
    """

    norm: Norm = "Linf"
    eps: float | tuple[float, ...] | None = None
    steps: int = 20
    restarts: int = 3
    step_size: float | None = None

    def conditions(self, default_eps: tuple[float, ...]) -> tuple[Attacked, ...]:
        """Make one condition per eps.

        Raises:
            ValueError: if another norm than Linf has no eps, the list of eps is empty, or PGD refuses a setting.
        """
        given = self.eps
        if given is None:
            if self.norm != "Linf":
                raise ValueError(_no_eps(self.norm))
            given = default_eps
        eps = tuple(dict.fromkeys((given,) if isinstance(given, int | float) else given))
        if not eps:
            raise ValueError("give at least one eps, e.g. [0.1]")
        return tuple(
            Attacked(
                attack=PGD(
                    threat=_threat(self.norm, value),
                    steps=self.steps,
                    restarts=self.restarts,
                    step_size=self.step_size,
                )
            )
            for value in eps
        )


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack, or its quick screen.

    Args:
        norm: of the perturbation.
        eps: its largest size, in units of [0, 1] pixels; None means the benchmark's own, which is for Linf.
        version: "standard", "plus", "rand" for models that randomise, or "fast", a screen.
    """

    norm: Norm = "Linf"
    eps: float | None = None
    version: Literal["standard", "plus", "rand", "fast"] = "standard"

    def condition(self, default_eps: float) -> Suite:
        """Make the condition.

        Raises:
            ValueError: if another norm than Linf has no eps, or the settings do not fit together.
        """
        threat = _threat(self.norm, default_eps if self.eps is None and self.norm == "Linf" else self.eps)
        return Suite(suite=auto_attack(threat, self.version))


def _no_eps(norm: str) -> str:
    if norm not in THREATS:
        return f"unknown norm {norm!r}: choose from {', '.join(THREATS)}"
    return f"give eps for the norm {norm}, e.g. [0.5]: the benchmark's own are for Linf"


def _threat(norm: str, eps: float | None) -> Threat:
    if eps is None or norm not in THREATS:
        raise ValueError(_no_eps(norm))
    return THREATS[norm](eps=eps)
