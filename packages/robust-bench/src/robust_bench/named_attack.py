"""Attacks by name, with settings as a command line gives them."""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from robust_attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    MIFGSM,
    PGD,
    CarliniWagner,
    DeepFool,
    Square,
    WorstCase,
    auto_attack,
    cross_entropy,
    dlr,
    margin,
)

from robust_bench.benchmarks.attacks import THREATS, Norm
from robust_bench.conditions import Attacked, Suite

Setting = int | float | bool | str

_LOSSES = {loss.__name__: loss for loss in (cross_entropy, margin, dlr)}
_INSIDE: Mapping[str, type] = {kind.__name__.lower(): kind for kind in (PGD, FGSM, MIFGSM, APGD, FAB, Square)}
_NEAREST: Mapping[str, type] = {kind.__name__.lower(): kind for kind in (DDN, FMN, DeepFool, CarliniWagner)}
_SUITE = "autoattack"

NAMES = (*_INSIDE, _SUITE, *_NEAREST)
"""Attacks that have a name here."""


def pixel_units(given: float | str) -> float:
    """Read a size in units of [0, 1] pixels, as people write it.

    Raises:
        ValueError: if it is neither a number nor a fraction.

    Examples:
        >>> pixel_units("4/255") == 4 / 255, pixel_units("0.0157"), pixel_units(0.5)
        (True, 0.0157, 0.5)
    """
    if not isinstance(given, str):
        return float(given)
    try:
        return float(Fraction("".join(given.split())))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"a size must be a number such as 0.0157 or a fraction such as 4/255, got {given!r}"
        ) from error


def named_attack(name: str, *, norm: Norm, eps: float, settings: Mapping[str, Setting]) -> Attacked | Suite:
    """Make an attack on all images, also on those that are wrong when clean.

    Attacks that look for the nearest misclassified image count where they find one within eps; elsewhere the image
    stays as it is. Case, hyphens and underscores in the name do not matter.

    Args:
        name: one of `NAMES`, a class of robust_attacks or "autoattack".
        norm: of the change.
        eps: its largest size, in units of [0, 1] pixels.
        settings: the attack's further settings; a loss by its name, a step size also as a fraction, as "1/255".

    Raises:
        ValueError: for an unknown name, norm, setting or loss, or a value that the attack refuses.
        TypeError: if the attack refuses a value for its type, or the norm.

    Examples:
        >>> named_attack("pgd", norm="Linf", eps=4 / 255, settings={"steps": 5, "loss": "dlr"}).label
        'PGD-5, Linf 4/255, all images'
    """
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in NAMES:
        raise ValueError(f"unknown attack {name!r}: choose from {', '.join(NAMES)}")
    if norm not in THREATS:
        raise ValueError(f"unknown norm {norm!r}: choose from {', '.join(THREATS)}")
    threat = THREATS[norm](eps=eps)
    if plain == _SUITE:
        _check_names(name, settings, ("version",))
        return Suite(suite=auto_attack(threat, str(settings.get("version", "standard"))))
    kind = _INSIDE.get(plain) or _NEAREST[plain]
    fields = tuple(entry.name for entry in dataclasses.fields(kind))
    _check_names(name, settings, tuple(field for field in fields if field not in ("threat", "norm")))
    given: dict[str, Any] = {key: _value(key, value) for key, value in settings.items()}
    if plain in _INSIDE:
        return Attacked(attack=kind(threat=threat, **given), all_images=True)
    if "norm" in fields:
        given["norm"] = norm
    elif norm != "L2":
        raise ValueError(f"{kind.__name__} minimises the L2 norm, got {norm}: give --norm L2, or another attack")
    return Suite(suite=WorstCase({plain: kind(**given)}, threat=threat, name=kind.__name__))


def _check_names(attack: str, given: Mapping[str, Setting], known: tuple[str, ...]) -> None:
    if unknown := [key for key in given if key not in known]:
        raise ValueError(f"the attack {attack!r} has no setting {unknown[0]!r}: it has {', '.join(known)}")


def _value(key: str, given: Setting) -> Any:
    """Turn what was typed into what the attack takes.

    Raises:
        ValueError: for an unknown loss, or a step size that is no number.
    """
    if key == "loss":
        if given not in _LOSSES:
            raise ValueError(f"unknown loss {given!r}: choose from {', '.join(_LOSSES)}")
        return _LOSSES[str(given)]
    return pixel_units(given) if key == "step_size" else given
