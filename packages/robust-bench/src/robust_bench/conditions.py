"""What is done to the images before the model sees them."""

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from robust_attacks import ImageRandom, Report, WorstCase
from robust_attacks.auto_attack import VERSIONS
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.corruptions import CORRUPTIONS, PRESETS, VARIANTS, corrupt
from robust_bench.fingerprint import function_name, without_addresses
from robust_bench.result import plain
from robust_bench.tables import eps_text


class Condition(Protocol):
    """One column of an evaluation: a label, its settings, and the change itself."""

    @property
    def label(self) -> str:
        """Name the condition for readers, e.g. "PGD-20 × 3, Linf 0.15"."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Give everything that sets it, as JSON values, with "kind"."""
        ...

    @property
    def only_right(self) -> bool:
        """Tell whether only images that are right when clean are changed; the others count as wrong unchanged."""
        ...

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Change float images (N, C, H, W) in [0, 1] into others of the same shape and range."""
        ...


class Attack(Protocol):
    """A frozen dataclass of settings that is called as `attack(model, images, labels, random=...) -> images`."""

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Change images (N, C, H, W) with true labels (N,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The images as they are."""

    label: ClassVar[str] = "clean"
    only_right: ClassVar[bool] = False

    @property
    def settings(self) -> dict[str, Any]:
        """Give the kind."""
        return {"kind": "clean"}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same images."""
        return images


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
        _check_one_eps(getattr(getattr(self.attack, "threat", None), "eps", 0.0))

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
        return out | _fields(attack)

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


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Several attacks, each on what the ones before it have left standing, such as AutoAttack.

    An image counts as robust when it is right when clean and under all attacks.

    Args:
        suite: e.g. `auto_attack(Linf(eps=8 / 255))`; its seed gives way to that of the evaluation.

    Raises:
        ValueError: if the threat's eps is one number per image.
    """

    suite: WorstCase
    only_right: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_one_eps(self._threat.eps)

    @property
    def label(self) -> str:
        """Name the suite with norm and eps."""
        name = f"AutoAttack {self.suite.name}" if self.suite.name in VERSIONS else self.suite.name
        return f"{name}, {self._threat.name} {eps_text(self._threat.eps)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the name, norm, eps, and the attacks with all their fields."""
        attacks = {name: _fields(attack) for name, attack in self.suite.stages.items()}
        return {
            "kind": "attack",
            "attack": self.suite.name,
            "norm": self._threat.name,
            "eps": float(self._threat.eps),
            "attacks": attacks,
        }

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None,
        seed: int,
        batch_size: int,
        checkpoint: Path | None = None,
    ) -> Report:
        """Attack images, as many at once as there are; see `robust_attacks.WorstCase.run`."""
        suite = dataclasses.replace(self.suite, seed=seed)
        return suite.run(model, images, labels, ids, batch_size=batch_size, checkpoint=checkpoint)

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack one batch."""
        report = self.run(model, images, labels, random.ids, random.seed, max(len(images), 1))
        assert report.adversarial is not None
        return report.adversarial

    @property
    def _threat(self) -> Any:
        return self.suite.threat


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Images with one of the common corruptions, as 8-bit files hold them.

    The images are rounded to 8 bits, corrupted and truncated to 8 bits as the published sets were.

    Args:
        corruption: one of `robust_bench.corruptions.CORRUPTIONS`.
        severity: 1..5.
        preset: whose constants: "imagenet", "tiny_imagenet" or "cifar".
        variant: "imagenet_c" or "imagecorruptions".

    Raises:
        ValueError: if one of them is not among those.
    """

    corruption: str
    severity: int = 3
    preset: str = "imagenet"
    variant: str = "imagenet_c"
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("corruption", self.corruption, CORRUPTIONS),
            ("severity", self.severity, (1, 2, 3, 4, 5)),
            ("preset", self.preset, tuple(PRESETS)),
            ("variant", self.variant, VARIANTS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}: choose from {', '.join(map(str, choices))}")

    @property
    def label(self) -> str:
        """Name the corruption with its severity."""
        return f"{self.corruption} {self.severity}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give all four arguments, and that nothing was stored as JPEG."""
        return {"kind": "corruption", **dataclasses.asdict(self), "source": "generated", "jpeg85": False}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Round to 8 bits, corrupt, and go back to floats in [0, 1]."""
        levels = images.mul(255.0).round_().to(torch.uint8)
        corrupted = corrupt(
            levels, self.corruption, self.severity, self.preset, self.variant, seed=random.seed, ids=random.ids
        )
        return corrupted.to(images.dtype).div_(255.0)


def identity(condition: Condition) -> dict[str, Any]:
    """Everything by which a resumed run recognises a condition: its settings, and where a function of its comes from.

    Raises:
        TypeError: if it holds a lambda, or a function inside another one.
    """
    attack: Any = getattr(condition, "attack", None)
    parts = [attack]
    if dataclasses.is_dataclass(attack):
        parts += [getattr(attack, entry.name) for entry in dataclasses.fields(attack)]
    functions = [part for part in parts if isinstance(part, types.FunctionType)]
    names = [function_name(function, f"a function of {condition.label}") for function in functions]
    return condition.settings | ({"functions": names} if names else {})


def _check_one_eps(eps: object) -> None:
    if isinstance(eps, Sequence | Tensor):
        raise ValueError(f"an evaluation needs one eps for all images, got {len(eps)}: give one condition per eps")


def _fields(attack: Any) -> dict[str, Any]:
    """Give the fields of an attack but its threat, as JSON values."""
    if not dataclasses.is_dataclass(attack):
        return {}
    names = (entry.name for entry in dataclasses.fields(attack) if entry.name != "threat")
    return {name: _describe(getattr(attack, name)) for name in names}


def _describe(value: object) -> Any:
    """Turn a setting into JSON values: functions by name, dataclasses as mappings, anything else as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {entry.name: _describe(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
        return {"class": type(value).__name__, **inner}
    if isinstance(value, functools.partial):
        arguments = [_describe(value.args), _describe(value.keywords)]
        return {"partial": _describe(value.func), "arguments": arguments}
    if callable(value):
        return getattr(value, "__name__", None) or without_addresses(value)
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    try:
        return plain(value, "setting")
    except (TypeError, ValueError):
        return without_addresses(value)
