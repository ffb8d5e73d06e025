"""Threats: what an attacker may change, as a ball of radius eps around each image, cut by the box [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._ball import Ball, Projector
from robust_attacks.projections import project_l1, project_l2
from robust_attacks.random import ImageRandom

_PIXELS = (1, 2, 3)


@runtime_checkable
class Threat(Protocol):
    """What an attack needs of a threat, be it one of your own; `Linf`, `L2` and `L1` are the threats of this package.

    A point is *inside* when it lies in the ball and in the box. Images are (N, C, H, W), float32 or float64, in [0, 1].
    """

    @property
    def name(self) -> str:
        """The name of the norm, as `"Linf"`."""
        ...

    @property
    def tolerance(self) -> float:
        """How far, relative to eps, the float64 distance of an attacked image may exceed eps."""
        ...

    def projector(self, images: Tensor) -> Projector:
        """The projection for given images: candidates (N, C, H, W) to the nearest inside points."""
        ...

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniformly distributed point of each ball, then projected into the box."""
        ...

    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:
        """The direction of unit norm in which a function with this gradient rises fastest."""
        ...

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The norm of the difference of each pair, float64 (N,)."""
        ...

    def radii(self, images: Tensor) -> Tensor | float:
        """The radius as a number, or as float64 (N, 1, 1, 1) on the images' device."""
        ...

    def select(self, index: Tensor) -> Self:
        """The threat for some of the images, chosen by a boolean mask or indices (N,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Linf(Ball):
    """Every pixel may change by at most eps.

    Args:
        eps: radius in units of [0, 1] pixels, 0 <= eps <= 1: a number, or a sequence or tensor with one per image.

    Raises:
        ValueError: if eps is negative, not finite or above 1.

    Examples:
        >>> images = torch.tensor([0.1, 0.5]).reshape(1, 1, 1, 2)
        >>> Linf(eps=0.25).project(images, torch.tensor([-1.0, 0.6]).reshape(1, 1, 1, 2)).flatten()
        tensor([0.0000, 0.6000])
    """

    name: ClassVar[str] = "Linf"
    tolerance: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(self.eps, default=0.0) if isinstance(self.eps, Sequence) else self.eps
        if largest > 1:
            raise ValueError(f"Linf: eps is in units of [0, 1] pixels, got {largest}: did you mean {largest:g} / 255?")

    def projector(self, images: Tensor) -> Projector:
        """Candidates clamped to [x - eps, x + eps] and [0, 1]; the two bounds of every pixel are computed once."""
        radii = self.radii(images)
        origin = images.double()
        lower = _bound(origin, images.dtype, -radii, radii)
        upper = _bound(origin, images.dtype, radii, radii)
        return lambda candidates: candidates.clamp(lower, upper).to(images.dtype)

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniform point of the cube, `x + eps (2 U - 1)`, clipped to the box.

        Draws: U by the flat pixel index of `use`.
        """
        radii, origin = self.radii(images), images.double()
        drawn = random.uniform(use, images.shape[1:], restart=restart).double()
        points = drawn.mul_(2).sub_(1).mul_(radii).add_(origin).clamp_(0, 1).to(images.dtype)
        beyond = self.distance(images, points)[:, None, None, None] > radii  # by rounding
        if _host.can_look(images) and not bool(beyond.any()):
            return points
        return self.project(images, points)

    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:  # noqa: ARG002
        """The sign of the gradient, with sign(0) = 0."""
        return gradient.sign()

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The largest change of a pixel, float64 (N,)."""
        return (others.double() - images).abs_().amax(dim=_PIXELS)


@dataclass(frozen=True, kw_only=True)
class L2(Ball):
    """The Euclidean length of the change of an image is at most eps.

    Args:
        eps: radius in units of [0, 1] pixels, >= 0: a number, or a sequence or tensor with one per image.

    Raises:
        ValueError: if eps is negative or not finite.

    Examples:
        >>> images = torch.tensor([0.5, 0.9]).reshape(1, 1, 1, 2)
        >>> L2(eps=0.5).project(images, images + 9).flatten()
        tensor([0.9899, 1.0000])
    """

    name: ClassVar[str] = "L2"

    def projector(self, images: Tensor) -> Projector:
        """The nearest inside point to each candidate; exact, see `projections.project_l2`."""
        radii, origin = self.radii(images), images.double()
        return lambda candidates: project_l2(images, origin, candidates, radii)

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniform point of the ball, `x + eps U^(1/d) g / ||g||` with normal g, clipped to the box.

        Draws: g by the flat pixel index of `use`, U from `use-radius`.
        """
        shape = images.shape[1:]
        normal = random.normal(use, shape, restart=restart).double()
        radius = random.uniform(f"{use}-radius", (1, 1, 1), restart=restart).double() ** (1 / shape.numel())
        return self.project(images, images + normal * (self.radii(images) * radius / _length(normal)))

    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:  # noqa: ARG002
        """The gradient divided by its length; zero where the gradient is zero."""
        # In two strokes that stay in the gradient's own precision: one over a tiny or a huge length would leave it.
        least = 1e-60 if gradient.dtype == torch.float32 else 1e-300  # what is not zero is longer
        stroke = _norm(gradient, 2).clamp_(min=least).rsqrt_().to(gradient.dtype)
        return gradient.mul(stroke).mul_(stroke)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The Euclidean length of the change, float64 (N,)."""
        return _norm(others.double() - images, 2).flatten()


@dataclass(frozen=True, kw_only=True)
class L1(Ball):
    """The changes of all pixels of an image add up to at most eps.

    Args:
        eps: radius in units of [0, 1] pixels, >= 0: a number, or a sequence or tensor with one per image.

    Raises:
        ValueError: if eps is negative or not finite.

    Examples:
        >>> images = torch.tensor([0.5, 0.5]).reshape(1, 1, 1, 2)
        >>> L1(eps=0.25).project(images, torch.tensor([0.9, 0.6]).reshape(1, 1, 1, 2)).flatten()
        tensor([0.7500, 0.5000])
    """

    name: ClassVar[str] = "L1"

    def projector(self, images: Tensor) -> Projector:
        """The nearest inside point (in L2) to each candidate; exact, see `projections.project_l1`."""
        radii, origin = self.radii(images), images.double()
        return lambda candidates: project_l1(images, origin, candidates, radii)

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniform point of the ball, `x + eps S E / sum E` with d + 1 exponentials E, clipped to the box.

        Draws: E by the flat pixel index of `use`, the signs S from `use-sign`.
        """
        shape = images.shape[1:]
        pixels = shape.numel()
        drawn = random.exponential(use, (pixels + 1,), restart=restart).double()
        shares = (drawn / drawn.sum(dim=1, keepdim=True))[:, :pixels].reshape(-1, *shape)
        signs = random.signs(f"{use}-sign", shape, restart=restart)
        return self.project(images, images + self.radii(images) * signs * shares)

    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:
        """Equal steps, 1 in sum, along the `coordinates` pixels of largest gradient that have room in its direction.

        Tramèr and Boneh, "Adversarial training and robustness for multiple perturbations", NeurIPS 2019,
        arXiv:1904.13000. Steps along one coordinate are the steepest.

        Args:
            gradient: (N, C, H, W), finite.
            images: where the step starts, (N, C, H, W) in [0, 1].
            coordinates: how many pixels move at most, >= 1.
        """
        flat, start = gradient.flatten(1), images.flatten(1)
        rooms = torch.where(flat > 0, 1 - start, start)
        values, index = torch.where(rooms > 0, flat.abs(), 0).topk(min(coordinates, flat.shape[1]), dim=1)
        used = values > 0
        steps = flat.gather(1, index).sign() * used / used.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.zeros_like(flat).scatter_(1, index, steps.to(flat.dtype)).reshape(gradient.shape)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The sum of the changes of all pixels, float64 (N,)."""
        return _norm(others.double() - images, 1).flatten()


def _norm(vectors: Tensor, order: int) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, order, dim=_PIXELS, keepdim=True, dtype=torch.float64)
    return lengths


def _length(vectors: Tensor) -> Tensor:
    """Euclidean lengths, float64 (N, 1, 1, 1), never zero: vectors of length zero stay zero when divided."""
    return _norm(vectors, 2).clamp_(min=1e-300)


def _bound(origin: Tensor, dtype: torch.dtype, step: Tensor | float, radii: Tensor | float) -> Tensor:
    """`origin + step` for a step of plus or minus the radii, cut to the box, as the last number of `dtype` inside."""
    rounded = (origin + step).clamp_(0, 1).to(dtype)
    excess = (rounded - origin).abs_()
    beyond = torch.gt(excess, radii, out=excess)
    # The bits of floats that are not negative, read as integers, are in the order of the floats.
    bits = rounded.view(torch.int32 if dtype == torch.float32 else torch.int64)
    bits.add_(beyond.copysign_(torch.as_tensor(-step, dtype=torch.float64, device=origin.device)).to(bits.dtype))
    return rounded
