"""What all threats share: a radius, one number or one per image, and the way from a projector to a projection."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from robust_attacks.random import ImageRandom

Eps = float | Sequence[float]
Projector = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Ball(ABC):
    """A ball of radius eps around each image, cut by the box [0, 1]; the norm is up to the subclass."""

    eps: Eps
    name: ClassVar[str]
    tolerance: ClassVar[float] = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_eps(self.name, self.eps))

    def project(self, images: Tensor, candidates: Tensor) -> Tensor:
        """The nearest inside point to each candidate (N, C, H, W)."""
        return self.projector(images)(candidates)

    @abstractmethod
    def projector(self, images: Tensor) -> Projector:
        """`project` for given images: what does not depend on the candidates is computed once."""

    @abstractmethod
    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniformly distributed point of each ball, then projected into the box."""

    @abstractmethod
    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:
        """The direction of unit norm in which a function with this gradient rises fastest."""

    @abstractmethod
    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The norm of the difference of each pair, float64 (N,)."""

    def radii(self, images: Tensor) -> Tensor | float:
        """The radius as a number, or as float64 (N, 1, 1, 1) on the images' device.

        Raises:
            ValueError: if there is one radius per image, but for another number of images.
        """
        if not isinstance(self.eps, Sequence):
            return self.eps
        if len(self.eps) != len(images):
            raise ValueError(
                f"{self.name} has eps for {len(self.eps)} images, but {len(images)} images were given: "
                "pass one number, or one eps per image"
            )
        return torch.tensor(self.eps, dtype=torch.float64, device=images.device).reshape(-1, 1, 1, 1)

    def select(self, index: Tensor) -> Self:
        """The threat for some of the images, chosen by a boolean mask or indices (N,)."""
        if not isinstance(self.eps, Sequence):
            return self
        return replace(self, eps=torch.tensor(self.eps, dtype=torch.float64)[index.cpu()].tolist())


def check_eps(name: str, eps: Any) -> float | tuple[float, ...]:
    """A number as a float; a sequence, tensor or array of one dimension as a tuple of floats.

    Raises:
        TypeError: if it is something else.
        ValueError: if one of the numbers is negative, infinite or NaN.
    """
    plain = _plain(eps)
    several = isinstance(plain, Sequence) and not isinstance(plain, str)
    numbers = [_plain(number) for number in plain] if several else [plain]
    if any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers):
        given = f"shape {tuple(eps.shape)}" if hasattr(eps, "shape") else repr(eps)
        raise TypeError(
            f"{name}: eps must be one number, as 8 / 255, or one number per image in a sequence, tensor or array "
            f"of shape (N,), got {given}"
        )
    floats = tuple(float(number) for number in numbers)
    for number in floats:
        if not 0 <= number < torch.inf:
            raise ValueError(f"{name}: eps must be a finite number >= 0 in units of [0, 1] pixels, got {number}")
    return floats if several else floats[0]


def _plain(value: Any) -> Any:
    """Tensors, NumPy arrays and their numbers as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value
