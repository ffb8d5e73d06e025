"""How the held-out images are judged."""

from dataclasses import dataclass

from robust_train.settings.attack import Norm, check_eps
from robust_train.settings.require import require


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Clean and robust accuracy on the held-out part of the training set, by PGD.

    Args:
        every: epochs between evaluations; the last epoch is always evaluated.
        norm: of the ball; None takes the norm of the training attack.
        eps: radius of the ball in units of [0, 1] pixels; None takes that of the training attack.
        steps: gradient steps of PGD.
        relative_step: length of one step as a multiple of eps.
        restarts: runs from different starting points; an image counts when it stands all of them.
        batch_size: images per batch, which changes the speed only.
    """

    every: int
    norm: Norm | None
    eps: float | None
    steps: int
    relative_step: float
    restarts: int
    batch_size: int

    def __post_init__(self) -> None:
        for setting in ("every", "steps", "restarts", "batch_size"):
            number = getattr(self, setting)
            require(number >= 1, f"{setting} must be at least 1, got {number}")
        require((self.norm is None) == (self.eps is None), "norm and eps must be given both, or both be null")
        if self.norm is not None and self.eps is not None:
            check_eps(self.norm, self.eps)
        require(self.relative_step > 0, f"relative_step must be positive, got {self.relative_step}")
