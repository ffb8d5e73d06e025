"""The settings of an attack, checked once when it is made; messages know the usual mistakes."""

import math
from numbers import Integral, Real
from typing import Any

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


def check_number(
    attack: str,
    name: str,
    number: Any,
    *,
    least: float = 0.0,
    most: float = math.inf,
    open_below: bool = False,
    open_above: bool = False,
) -> float:
    """Hand back a number of the range, which float32 must be able to hold, as a float.

    Args:
        attack: whose setting it is, for the message.
        name: of the setting.
        number: what was given.
        least: the lower end of the range.
        most: the upper end; infinity stands for any finite number.
        open_below: whether `least` itself is refused.
        open_above: whether `most` itself is refused.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range or not finite.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{attack}: {name} must be a number, got {_shown(number)}")
    value = float(number)
    inside = (least < value if open_below else least <= value) and (value < most if open_above else value <= most)
    if not inside or abs(value) > torch.finfo(torch.float32).max:
        asked = f"{'above' if open_below else 'at least'} {least:g}"
        if most < math.inf:
            asked += f" and {'below' if open_above else 'at most'} {most:g}"
        raise ValueError(f"{attack}: {name} must be {asked}, and finite, got {number}")
    return value


def check_count(attack: str, name: str, count: Any, *, least: int = 1, most: int | None = None) -> None:
    """Refuse all but whole numbers from `least`, up to `most`.

    Raises:
        TypeError: if it is not an int.
        ValueError: if it is out of range.
    """
    if isinstance(count, bool) or not isinstance(count, Integral):
        raise TypeError(f"{attack}: {name} must be an int, got {_shown(count)}")
    if int(count) < least or (most is not None and int(count) > most):
        asked = f"at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{attack}: {name} must be {asked}, got {count}")


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
