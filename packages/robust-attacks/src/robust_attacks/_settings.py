"""The settings of an attack, checked once when it is made; messages know the usual mistakes."""

from numbers import Integral, Real
from typing import Any, Literal

import torch

from robust_attacks.losses import targeted
from robust_attacks.threats import Linf, Threat


def check_threat(attack: str, threat: Any) -> None:
    """Refuse what is no threat.

    Raises:
        TypeError: if it lacks what the protocol `Threat` asks for.
    """
    if isinstance(threat, type) or not isinstance(threat, Threat):
        raise TypeError(
            f"{attack}: threat must say norm and radius, as {attack}(threat=Linf(eps=8/255)), got {_shown(threat)}"
        )


def check_linf(attack: str, threat: Any) -> None:
    """Refuse what is not `Linf`.

    Raises:
        TypeError: if it is another threat, or none.
    """
    if not isinstance(threat, Linf):
        raise TypeError(f"{attack}: threat must be Linf, as {attack}(threat=Linf(eps=8/255)), got {_shown(threat)}")


def check_loss(attack: str, loss: Any) -> None:
    """Refuse what is no loss.

    Raises:
        TypeError: if it cannot be called with logits and labels.
    """
    if loss is targeted:
        raise TypeError(f"{attack}: targeted turns a loss round: pass loss=targeted(cross_entropy)")
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"{attack}: loss must be a function of logits and labels, as loss=cross_entropy, got {_shown(loss)}"
        )


def check_step_size(attack: str, step_size: Any, default: str) -> None:
    """Refuse all but None and a positive length that float32 can hold.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not positive and finite.
    """
    if step_size is None:
        return
    if isinstance(step_size, bool) or not isinstance(step_size, Real):
        raise TypeError(f"{attack}: step_size must be a number, or None for {default}, got {_shown(step_size)}")
    if not 0 < float(step_size) <= torch.finfo(torch.float32).max:
        raise ValueError(f"{attack}: step_size must be positive and finite, or None for {default}, got {step_size}")


def check_number(attack: str, name: str, number: Any, kind: Literal["positive", "zero or positive"]) -> None:
    """Refuse all but finite numbers that are positive, or not negative.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{attack}: {name} must be a number, got {_shown(number)}")
    value = float(number)
    if not (0 <= value <= torch.finfo(torch.float32).max) or (value == 0 and kind == "positive"):
        raise ValueError(f"{attack}: {name} must be {kind} and finite, got {number}")


def check_count(attack: str, name: str, count: Any, most: int | None = None) -> None:
    """Refuse all but whole numbers from 1, up to `most`.

    Raises:
        TypeError: if it is not an int.
        ValueError: if it is out of range.
    """
    if isinstance(count, bool) or not isinstance(count, Integral):
        raise TypeError(f"{attack}: {name} must be an int, got {_shown(count)}")
    if int(count) < 1 or (most is not None and int(count) > most):
        asked = "at least 1" if most is None else f"in 1..{most}"
        raise ValueError(f"{attack}: {name} must be {asked}, got {count}")


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
