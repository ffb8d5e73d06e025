"""Images under one attack."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.conditions.settings import attack_fields, check_one_eps
from robust_bench.tables import eps_text


class Attack(Protocol):
    """A frozen dataclass of settings that is called as `attack(model, images, labels, random=...) -> images`."""

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Change images (N, C, H, W) with true labels (N,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Adversarial images, made for the model at hand.

    An image counts as robust when it is right both when clean and under the attack, so images that are wrong when
    clean are not attacked.

    Args:
        attack: e.g. `PGD(threat=Linf(eps=8 / 255), steps=20, restarts=3)`.

    Raises:
        ValueError: if the attack's eps is one number per image: an evaluation has batches of its own.
    """

    attack: Attack
    only_right: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_eps(getattr(getattr(self.attack, "threat", None), "eps", 0.0))

    @property
    def label(self) -> str:
        """Name the attack with its steps and restarts, the norm and eps."""
        known = self.settings
        text = str(known["attack"])
        if "steps" in known:
            text += f"-{known['steps']}"
        if known.get("restarts", 1) != 1:
            text += f" × {known['restarts']}"
        return f"{text}, {known['norm']} {eps_text(known['eps'])}" if "norm" in known else text

    @property
    def settings(self) -> dict[str, Any]:
        """Give the attack's class and all its fields; a threat becomes "norm" and "eps", a function its name."""
        attack: Any = self.attack
        out: dict[str, Any] = {"kind": "attack", "attack": getattr(attack, "__name__", type(attack).__name__)}
        threat = getattr(attack, "threat", None)
        if threat is not None:
            out |= {"norm": threat.name, "eps": float(threat.eps)}
        return out | attack_fields(attack)

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack the images and check that they stay inside the threat.

        Raises:
            RuntimeError: if they do not: the accuracy would not belong to this threat.
        """
        adversarial = self.attack(model, images, labels, random=random).detach()
        threat = getattr(self.attack, "threat", None)
        if adversarial.shape != images.shape:
            raise RuntimeError(f"{self.label} turned {tuple(images.shape)} images into {tuple(adversarial.shape)}")
        if len(images) and threat is not None:
            distance = float(threat.distance(images, adversarial).max())
            if not distance <= threat.eps * (1.0 + 1e-5) + 1e-7:
                raise RuntimeError(
                    f"{self.label} went too far: {distance:.6g} from the image, allowed is {threat.eps:.6g}"
                )
        return adversarial
