"""How the weights move."""

from dataclasses import dataclass
from typing import Literal

from timm.optim import get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

from robust_train.settings.require import require


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The arguments of `timm.optim.create_optimizer_v2`.

    Args:
        name: one of `timm.optim.list_optimizers()`; there "sgd" means Nesterov's momentum, "momentum" the plain one.
        lr: the highest learning rate; the number that is used, not scaled by anything.
        weight_decay: as the optimizer defines it (decoupled for AdamW).
        momentum: for optimizers that have it, else None.
        betas: for optimizers that have them (Adam and its relatives), else None.
        decay_all: decay biases and other one-dimensional parameters too.
        layer_decay: factor of the learning rate from each layer to the one before it, in (0, 1); None for no such rule.
    """

    name: str
    lr: float
    weight_decay: float
    momentum: float | None
    betas: tuple[float, ...] | None
    decay_all: bool
    layer_decay: float | None

    def __post_init__(self) -> None:
        if self.name not in list_optimizers():
            raise ValueError(
                f"name {self.name!r} is no optimizer of timm: adamw, sgd, lamb, ... (timm.optim.list_optimizers())"
            )
        info = get_optimizer_info(self.name)
        second = f"name {self.name!r} needs second derivatives, which the loop does not compute: use adamw or sgd"
        require(not info.second_order, second)
        for setting, value, used in (
            ("momentum", self.momentum, info.has_momentum),
            ("betas", self.betas, info.has_betas),
        ):
            require(value is not None or not used, f"{setting} must be given: {self.name} uses it")
            require(value is None or used, f"{setting} must be null: {self.name} does not use it")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(self.momentum is None or 0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}")
        betas = self.betas or ()
        require(len(betas) in (0, info.num_betas), f"betas must be {info.num_betas} numbers, got {list(betas)}")
        require(all(0 <= beta < 1 for beta in betas), f"betas must lie in [0, 1), got {list(betas)}")
        decay = self.layer_decay
        require(decay is None or 0 < decay < 1, f"layer_decay must lie in (0, 1) or be null, got {decay}")


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """An average of the weights, `robust_optim.WeightAverage`: it is evaluated, selected and exported.

    Args:
        decay: share of the old average that stays at each update, in (0, 1).
        warmup: "none"; "ratio", a decay of at most (1 + t) / (10 + t); or "power", as timm's.
        start: share of all updates, in [0, 1), in which the average is a plain copy.
    """

    decay: float
    warmup: Literal["none", "ratio", "power"]
    start: float

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay must lie in (0, 1), got {self.decay}")
        require(0 <= self.start < 1, f"start must be a share of all updates, in [0, 1), got {self.start}")
