"""What an evaluation under attack found, image by image."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Flag:
    """A sign that numbers may not mean what they seem to; it never changes a verdict.

    Args:
        name: which test raised it, as `"square-wins"`.
        message: what was seen, and what to do.
        value: what was measured.
    """

    name: str
    message: str
    value: float


@dataclass(frozen=True)
class Stage:
    """What one attack of a worst case did.

    Args:
        name: of the stage.
        settings: of the attack, as it prints.
        robust: which images are still robust afterwards, bool (N,); cumulative.
        forwards: images that went through the model.
        backwards: images that gradients were taken for.
        seconds: of the wall clock.
        flips: successes that a second, exact look did not confirm.
    """

    name: str
    settings: str
    robust: Tensor
    forwards: int
    backwards: int
    seconds: float
    flips: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        stage: the name of the attack that is going on.
        number: of the stage, from 1.
        stages: how many there are.
        done: images that this attack has decided.
        total: images that it was given.
        robust: images that no attack has broken so far.
    """

    stage: str
    number: int
    stages: int
    done: int
    total: int
    robust: int


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of a worst case over attacks.

    Prints as a table; `to_json` and `from_json` carry all but the pixels without loss.

    Args:
        name: of the suite, as `"standard"`.
        norm: name of the threat's norm.
        eps: its radius, or one per image.
        seed: of the images' random streams.
        classes: K of the logits.
        clean: which images were classified correctly before the attacks, bool (N,).
        finite: for which images all logits were finite, bool (N,); the others are never counted as robust.
        parts: the stages in order.
        broken_by: for each image the stage that broke it, `"clean"` where it was misclassified at first,
            `"non-finite"` where logits were not finite, None where it stands.
        flags: signs that the numbers may mislead.
        notes: how the suite was fitted to the model, in sentences.
        versions: of what made the numbers.
        adversarial: (N, C, H, W): the confirmed adversarial image where an attack broke it, else the clean pixels.
        misclassified: of a randomised model: the share of fresh draws that misclassify `adversarial`, float64 (N,).
        one_draw: of a randomised model: which images a single fresh draw classifies correctly, bool (N,).
    """

    name: str
    norm: str
    eps: float | tuple[float, ...]
    seed: int
    classes: int
    clean: Tensor
    finite: Tensor
    parts: tuple[Stage, ...]
    broken_by: tuple[str | None, ...]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    adversarial: Tensor | None = None
    misclassified: Tensor | None = None
    one_draw: Tensor | None = None

    @property
    def robust(self) -> Tensor:
        """Which images no attack broke, bool (N,)."""
        return self.parts[-1].robust if self.parts else self.clean & self.finite

    @property
    def stages(self) -> dict[str, Tensor]:
        """Which images are robust after each stage, in order and cumulative."""
        return {part.name: part.robust for part in self.parts}

    @property
    def forwards(self) -> dict[str, int]:
        """Images that went through the model, per stage."""
        return {part.name: part.forwards for part in self.parts}

    @property
    def backwards(self) -> dict[str, int]:
        """Images that gradients were taken for, per stage."""
        return {part.name: part.backwards for part in self.parts}

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per stage."""
        return {part.name: part.seconds for part in self.parts}

    @property
    def clean_accuracy(self) -> float:
        """Share of images that are classified correctly without an attack."""
        return _share(self.clean)

    @property
    def robust_accuracy(self) -> float:
        """Share of images, of all, that are classified correctly under every attack."""
        return _share(self.robust)

    def to_json(self) -> str:
        """All but the pixels; masks as lists of 0 and 1."""
        return json.dumps({"format": "robust-attacks-report/1"} | _plain(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, adversarial: Tensor | None = None) -> "Report":
        """Back from `to_json`; the pixels are not in it.

        Raises:
            ValueError: if the text is of another format.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != "robust-attacks-report/1":
            raise ValueError('this is no report of robust-attacks: it lacks "format": "robust-attacks-report/1"')
        for name in ("clean", "finite", "one_draw"):
            data[name] = _mask(data[name])
        if data["misclassified"] is not None:
            data["misclassified"] = torch.tensor(data["misclassified"], dtype=torch.float64)
        data["parts"] = tuple(Stage(**part | {"robust": _mask(part["robust"])}) for part in data["parts"])
        data["flags"] = tuple(Flag(**flag) for flag in data["flags"])
        data["eps"] = tuple(data["eps"]) if isinstance(data["eps"], list) else data["eps"]
        data |= {name: tuple(data[name]) for name in ("broken_by", "notes")}
        return cls(**data, adversarial=adversarial)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and _plain(self) == _plain(other)

    def __str__(self) -> str:
        eps = f"{self.eps:.6g}" if isinstance(self.eps, float) else f"{min(self.eps):.6g} .. {max(self.eps):.6g}"
        count = len(self.clean)
        lines = [
            f"{self.name}: {self.norm}, eps {eps}, {count} images, {self.classes} classes, seed {self.seed}",
            f"{'stage':<16}{'robust':>8}{'accuracy':>11}{'forwards':>12}{'backwards':>12}{'seconds':>10}",
            f"{'clean':<16}{int(self.clean.sum()):>8}{self.clean_accuracy:>11.2%}",
        ]
        lines += [
            f"{part.name:<16}{int(part.robust.sum()):>8}{_share(part.robust):>11.2%}"
            f"{part.forwards:>12,}{part.backwards:>12,}{part.seconds:>10.1f}"
            for part in self.parts
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"warning ({flag.name}): {flag.message}" for flag in self.flags]
        return "\n".join(lines)


def _plain(report: Report) -> dict[str, Any]:
    """As JSON has it; `asdict` would copy the pixels."""
    data: dict[str, Any] = {name: value for name, value in vars(report).items() if name != "adversarial"}
    data["parts"] = [vars(part) | {"robust": part.robust.int().tolist()} for part in report.parts]
    data["flags"] = [asdict(flag) for flag in report.flags]
    for name in ("clean", "finite", "one_draw"):
        data[name] = None if data[name] is None else data[name].int().tolist()
    data["misclassified"] = None if report.misclassified is None else report.misclassified.tolist()
    data |= {name: list(data[name]) for name in ("broken_by", "notes")}
    data["eps"] = list(report.eps) if isinstance(report.eps, tuple) else report.eps
    return data


def _mask(values: list[int] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.bool)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if len(mask) else float("nan")
