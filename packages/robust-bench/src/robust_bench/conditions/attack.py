"""An attack as conditions use it: its name, its settings, and images that stay inside its threat."""

from typing import Any, Protocol

import torch
from robust_attacks import ImageRandom, Threat, TransferAttack
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.conditions.settings import attack_fields, check_one_eps
from robust_bench.tables import eps_text


class Attack(Protocol):
    """A frozen dataclass of settings that is called as `attack(model, images, labels, random=...) -> images`."""

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Change images (N, C, H, W) with true labels (N,)."""
        ...


def check_attack(attack: Attack) -> None:
    """Refuse an attack with an eps for every image.

    Raises:
        ValueError: if it is one: an evaluation has batches of its own.
    """
    check_one_eps(getattr(fixed_threat(attack), "eps", 0.0))


def fixed_threat(attack: Attack) -> Threat | None:
    """Give the threat that an attack has for all images; None where it has none, or one that depends on the image."""
    threat = getattr(attack, "threat", None)
    return threat if hasattr(threat, "eps") else None


def attack_label(attack: Attack) -> str:
    """Name an attack with its steps and restarts, the norm and eps."""
    known = attack_settings(attack)
    text = str(known["attack"])
    if "steps" in known:
        text += f"-{known['steps']}"
    if known.get("restarts", 1) != 1:
        text += f" × {known['restarts']}"
    if isinstance(attack, TransferAttack):
        of = "range" if attack.measure == "range" else "largest pixel"
        return f"{text}, {attack.relative_eps:g} of the {of}"
    return f"{text}, {known['norm']} {eps_text(known['eps'])}" if "norm" in known else text


def attack_settings(attack: Attack) -> dict[str, Any]:
    """Give an attack's class and all its fields; a threat becomes "norm" and "eps", a function its name."""
    out: dict[str, Any] = {"attack": getattr(attack, "__name__", type(attack).__name__)}
    threat: Any = fixed_threat(attack)
    if threat is not None:
        out |= {"norm": threat.name, "eps": float(threat.eps)}
    return out | attack_fields(attack)


def attacked(attack: Attack, model: Model, images: Tensor, labels: Tensor, random: ImageRandom) -> Tensor:
    """Attack images and check that they stay inside the threat.

    Raises:
        RuntimeError: if they do not: the accuracy would not belong to this threat.
    """
    adversarial = attack(model, images, labels, random=random).detach()
    if adversarial.shape != images.shape:
        raise RuntimeError(
            f"{attack_label(attack)} turned {tuple(images.shape)} images into {tuple(adversarial.shape)}"
        )
    threat: Any = getattr(attack, "threat", None)
    if callable(threat):
        threat = threat(images)
    if len(images) and threat is not None:
        distances = threat.distance(images, adversarial)
        allowed = torch.as_tensor(threat.eps, dtype=distances.dtype, device=distances.device).expand_as(distances)
        excess = distances - (allowed * (1.0 + 1e-5) + 1e-7)
        if not bool((excess <= 0).all()):  # also true for NaN
            worst = int(excess.nan_to_num(nan=torch.inf).argmax())
            raise RuntimeError(
                f"{attack_label(attack)} went too far: {float(distances[worst]):.6g} from the image, allowed is "
                f"{float(allowed[worst]):.6g}"
            )
    return adversarial
