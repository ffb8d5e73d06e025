"""Learning rate and strength of the attack as pure functions of the update, so that there is no state to lose."""

import math

from torch.optim import Optimizer

from robust_train.perturb import FULL, Strength
from robust_train.settings import AttackSettings, ConstantSchedule, CosineSchedule, OneCycleSchedule, StepSchedule

Schedule = OneCycleSchedule | CosineSchedule | StepSchedule | ConstantSchedule


def factor(schedule: Schedule, update: int, updates: int, per_epoch: int) -> float:
    """The learning rate of an update as a share of the highest one.

    Args:
        schedule: its settings.
        update: 0 .. updates - 1.
        updates: of the whole run.
        per_epoch: updates of an epoch.

    Examples:
        >>> schedule = OneCycleSchedule(name="onecycle", peak=0.5, start=0.0, end=0.0, shape="linear")
        >>> [factor(schedule, update, 101, 10) for update in (0, 25, 50, 75, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    match schedule:
        case OneCycleSchedule():
            last = updates - 1
            summit = schedule.peak * last
            if update <= summit and summit > 0:
                return _between(schedule.start, 1.0, update / summit, schedule.shape)
            share = (update - summit) / (last - summit) if last > summit else 1.0
            return _between(1.0, schedule.end, share, schedule.shape)
        case CosineSchedule():
            warmup = schedule.warmup_epochs * per_epoch
            if update < warmup:
                return _between(schedule.start, 1.0, update / warmup, "linear")
            share = (update - warmup) / (updates - warmup) if updates > warmup else 1.0
            return _between(1.0, schedule.end, share, "cosine")
        case StepSchedule():
            passed = sum(update >= milestone * per_epoch for milestone in schedule.milestones)
            return float(schedule.factor**passed)
        case ConstantSchedule():
            return 1.0


def strength(attack: AttackSettings | None, update: int, per_epoch: int) -> Strength:
    """How much of the attack an update uses: linear over the warm-up, in steps of an epoch or of an update.

    Examples:
        >>> from robust_train import recipes
        >>> warm = {"attack.warmup": "radius", "attack.warmup_epochs": 10}
        >>> attack = recipes.load("digits-fgsm-rs").replace(**warm).attack
        >>> [strength(attack, update, per_epoch=100).radius for update in (99, 500, 1000)]
        [0.0, 0.5, 1.0]
    """
    if attack is None or attack.warmup == "none":
        return FULL
    position = update // per_epoch if attack.warmup_per == "epoch" else update / per_epoch
    share = min(position / attack.warmup_epochs, 1.0)
    return Strength(
        radius=1.0 if attack.warmup == "step" else share,
        step=1.0 if attack.warmup == "radius" else share,
    )


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group of parameters; timm's layer-wise factors stay."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _between(first: float, last: float, share: float, shape: str) -> float:
    weight = share if shape == "linear" else (1 - math.cos(math.pi * share)) / 2
    return first + (last - first) * weight
