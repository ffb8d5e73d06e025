"""The analyses of attacks, occlusion and attention, as settings that a user may change."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from robust_attacks import PGD, Linf, TransferAttack

from robust_bench._checks import Model
from robust_bench.conditions.attack import Attack
from robust_bench.conditions.attacked import Attacked
from robust_bench.conditions.attention_similarity import AttentionSimilarity
from robust_bench.conditions.guest import Guests
from robust_bench.conditions.occluded import Occluded
from robust_bench.conditions.repeated import Repeated
from robust_bench.conditions.semantic import Semantic
from robust_bench.conditions.transferred import Transferred

_Number = TypeVar("_Number", int, float)

Protocol = Literal["worst_case", "orhan2019"]
"""Untargeted on all images, or that of the released code of Orhan, arXiv:1907.07640."""


@dataclass(frozen=True, kw_only=True)
class StepsCurve:
    """Accuracy after more and more steps of PGD, on the model itself.

    Orhan, "Robustness properties of Facebook's ResNeXt WSL models", 2019, arXiv:1907.07640. The released code behind
    the published numbers is no worst case: it attacks towards a random class, uses the clean image when that is missed,
    and takes every second image.

    Args:
        eps: of the Linf ball, in units of [0, 1] pixels.
        steps: of the curve, ascending.
        step_size: length of a step.
        protocol: "worst_case", untargeted and on all images, or "orhan2019", as the released code.
    """

    eps: float = 0.06
    steps: tuple[int, ...] = (10, 20, 30, 40, 50)
    step_size: float = 2 / 255
    protocol: Protocol = "worst_case"

    def conditions(self) -> tuple[Attacked, ...]:
        """Make one condition per number of steps.

        Raises:
            ValueError: if there are no steps, they do not ascend, or an attack refuses a setting.
        """
        steps = _ascending("steps", self.steps)
        return tuple(Attacked(attack=_orhan(self.protocol, self.eps, each, self.step_size, "range")) for each in steps)


@dataclass(frozen=True, kw_only=True)
class Effectiveness:
    """How close PGD of few steps comes to one of many, by the loss that it reaches.

    Debenedetti, Sehwag & Mittal, "A Light Recipe to Train Robust Vision Transformers", SaTML 2023, arXiv:2209.07399,
    section V-A. Steps have the length 1.5 eps / k and begin at a uniform point of the ball.

    Args:
        eps: of the Linf ball, in units of [0, 1] pixels; None means the benchmark's own, 4/255 for photographs.
        steps: of the short attacks (k), ascending.
        oracle_steps: of the long one.
        starts: seeds, over which the score is averaged and its deviation is given.
    """

    eps: float | None = None
    steps: tuple[int, ...] = (1, 2, 5, 10)
    oracle_steps: int = 200
    starts: int = 3

    def conditions(self, default_eps: float) -> tuple[Repeated, ...]:
        """Make one condition per short attack, and one for the oracle at the end.

        Raises:
            ValueError: if there are no steps, they do not ascend up to the oracle's, or an attack refuses a setting.
        """
        steps = _ascending("steps, with oracle_steps behind them,", (*self.steps, self.oracle_steps))
        return _repeated(default_eps if self.eps is None else self.eps, steps, self.starts)


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """The loss that PGD of more and more steps reaches from many random starts, and how far the starts differ.

    Debenedetti, Sehwag & Mittal, SaTML 2023, arXiv:2209.07399, section V-A: every point is a run of its own, whose
    steps have the length 1.5 eps / k. Their released code takes 100 images that are right when clean, and leaves the
    length of the steps the same at every k; here images are evenly spaced over the data.

    Args:
        eps: of the Linf ball, in units of [0, 1] pixels; None means the benchmark's own.
        steps: of the runs (k), ascending.
        starts: random starts of every image.
        images: how many are looked at; None means all.
    """

    eps: float | None = None
    steps: tuple[int, ...] = (1, 2, 5, 10, 50, 100, 200)
    starts: int = 20
    images: int | None = 100

    def conditions(self, default_eps: float) -> tuple[Repeated, ...]:
        """Make one condition per number of steps.

        Raises:
            ValueError: if there are no steps, they do not ascend, or an attack refuses a setting.
        """
        return _repeated(default_eps if self.eps is None else self.eps, _ascending("steps", self.steps), self.starts)


@dataclass(frozen=True, kw_only=True)
class TransferCurve:
    """Accuracy on what PGD made of the images on another model, at several sizes of the perturbation.

    Orhan, 2019, arXiv:1907.07640, with a ResNeXt-50 32x4d as the source. The protocol "orhan2019" pushes every image to
    a random class, takes the clean image when the source never gets there, and measures eps relative to the largest
    pixel of the image.

    Args:
        source: the model on which the images are attacked, named as in --model, e.g. "timm:resnext50_32x4d.tv_in1k".
        weights: of the source; None means the published ones of timm.
        eps: sizes of the perturbation, ascending.
        steps: of PGD, from a random start.
        step_size: length of a step.
        protocol: "worst_case", untargeted, or "orhan2019".
    """

    source: str | None = None
    weights: Path | None = None
    eps: tuple[float, ...] = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1)
    steps: int = 10
    step_size: float = 2 / 255
    protocol: Protocol = "worst_case"

    def conditions(self, source: Model, name: str) -> tuple[Transferred, ...]:
        """Make one condition per eps.

        Raises:
            ValueError: if there is no eps, they do not ascend, or an attack refuses a setting.
        """
        guests = Guests()  # one copy of the source on the device, not one per eps
        return tuple(
            Transferred(
                attack=_orhan(self.protocol, eps, self.steps, self.step_size, "image"),
                source_model=source,
                source_name=name,
                guests=guests,
            )
            for eps in _ascending("eps", self.eps)
        )


@dataclass(frozen=True, kw_only=True)
class SemanticScore:
    """Whether ordinary classifiers see the true class in the perturbations of an attack.

    Debenedetti, Sehwag & Mittal, SaTML 2023, arXiv:2209.07399, section V-B, with ConvNeXt-XL, BEiT-L and Swin-B as
    judges and 5,000 images.

    Args:
        judges: classifiers, named as in --model, e.g. "timm:swin_base_patch4_window7_224.ms_in22k_ft_in1k", with
            published weights.
        eps: of the Linf ball, in units of [0, 1] pixels; None means the benchmark's own, 4/255 for photographs.
        steps: of PGD, of the length 1.5 eps / steps.
        images: how many are looked at, evenly spaced over the data; None means all.
    """

    judges: tuple[str, ...] = ()
    eps: float | None = None
    steps: int = 100
    images: int | None = 5000

    def condition(self, judges: Mapping[str, Model], default_eps: float) -> Semantic:
        """Make the condition.

        Raises:
            ValueError: if there is no judge, or the attack refuses a setting.
        """
        return Semantic(attack=_scaled(default_eps if self.eps is None else self.eps, self.steps), judges=judges)


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Accuracy under many masks of patches that are replaced by noise.

    Guo, Stutz & Schiele (RSPC), CVPR 2023, Figure 2.

    Args:
        patch_size: side of the patches in pixels; None means the benchmark's own, 16 for photographs.
        share: share of the patches that are replaced, in (0, 1].
        masks: how many.
        noise: uniform in [0, 1] in "pixels", or in "normalized" ones, as in the released training code.
    """

    patch_size: int | None = None
    share: float = 0.1
    masks: int = 100
    noise: Literal["pixels", "normalized"] = "pixels"

    def condition(self, default_patch_size: int) -> Occluded:
        """Make the condition.

        Raises:
            ValueError: if a setting is out of range.
        """
        size = default_patch_size if self.patch_size is None else self.patch_size
        return Occluded(patch_size=size, share=self.share, masks=self.masks, noise=self.noise)


@dataclass(frozen=True, kw_only=True)
class AttentionStability:
    """How much the attention of a transformer changes when patches are occluded.

    Guo, Stutz & Schiele (RSPC), CVPR 2023, Figure 5.

    Args:
        patch_size: side of the patches in pixels; None means the benchmark's own, 16 for photographs.
        share: share of the patches that are replaced, in (0, 1].
    """

    patch_size: int | None = None
    share: float = 0.1

    def condition(self, default_patch_size: int) -> AttentionSimilarity:
        """Make the condition.

        Raises:
            ValueError: if a setting is out of range.
        """
        size = default_patch_size if self.patch_size is None else self.patch_size
        return AttentionSimilarity(patch_size=size, share=self.share)


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """All analyses.

    Args:
        steps: settings of the -steps benchmarks.
        effectiveness: settings of the -effectiveness benchmarks.
        convergence: settings of the -convergence benchmarks.
        transfer: settings of the -transfer benchmarks.
        semantic: settings of the -semantic benchmarks.
        occlusion: settings of the -occlusion benchmarks.
        attention: settings of the -attention benchmarks.
    """

    steps: StepsCurve = field(default_factory=StepsCurve)
    effectiveness: Effectiveness = field(default_factory=Effectiveness)
    convergence: Convergence = field(default_factory=Convergence)
    transfer: TransferCurve = field(default_factory=TransferCurve)
    semantic: SemanticScore = field(default_factory=SemanticScore)
    occlusion: Occlusion = field(default_factory=Occlusion)
    attention: AttentionStability = field(default_factory=AttentionStability)


def _orhan(protocol: Protocol, eps: float, steps: int, step_size: float, measure: Literal["image", "range"]) -> Attack:
    if protocol == "orhan2019":
        return TransferAttack(relative_eps=eps, measure=measure, steps=steps, step_size=step_size)
    if protocol != "worst_case":
        raise ValueError(f"protocol must be 'worst_case' or 'orhan2019', got {protocol!r}")
    return PGD(threat=Linf(eps=eps), steps=steps, step_size=step_size)


def _scaled(eps: float, steps: int) -> PGD:
    """PGD with the steps of the light recipe."""
    return PGD(threat=Linf(eps=eps), steps=steps, step_size=1.5 * eps / steps)


def _repeated(eps: float, steps: tuple[int, ...], starts: int) -> tuple[Repeated, ...]:
    return tuple(Repeated(attack=_scaled(eps, each), starts=starts) for each in steps)


def _ascending(name: str, values: tuple[_Number, ...]) -> tuple[_Number, ...]:
    if not values or any(one >= other for one, other in itertools.pairwise(values)):
        raise ValueError(f"{name} must ascend and be at least one number, got {list(values)}")
    return values
