"""A threat that may touch some pixels only."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robust_attacks._ball import Projector
from robust_attacks._settings import check_threat
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """A threat cut down to the pixels of a mask; all others stay as they are, bit for bit.

    It makes of any attack that takes a `Threat` one on these pixels: `PGD(threat=Masked(threat=Linf(), mask=mask))`
    is PGD restricted to a mask, `Linf(eps=1)` in it lets the pixels take any value. The projection is still the exact
    one and the random points are still uniform, in the ball of as many dimensions as the mask has pixels.

    Args:
        threat: what may be done to the pixels of the mask.
        mask: True where pixels may change, bool (N, C, H, W); N and C may be 1, for the same pixels in all images or
            channels. Best on the images' device: else every step copies it there.

    Raises:
        TypeError: if `threat` is no threat or `mask` no bool tensor.
        ValueError: if `mask` has not four dimensions.

    Examples:
        >>> from robust_attacks import Linf
        >>> mask = torch.tensor([True, False]).reshape(1, 1, 1, 2)
        >>> threat = Masked(threat=Linf(eps=0.25), mask=mask)
        >>> threat.project(torch.full((1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 2)).flatten()
        tensor([0.7500, 0.5000])
    """

    threat: Threat
    mask: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        check_threat("Masked", self.threat)
        given: Any = self.mask
        if not isinstance(given, Tensor) or given.dtype != torch.bool:
            given = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"Masked: mask must be a bool tensor, True where pixels may change, got {given}")
        if self.mask.ndim != 4:
            raise ValueError(
                f"Masked: mask must have shape (N, C, H, W), where N and C may be 1, got {tuple(self.mask.shape)}"
            )
        object.__setattr__(self, "mask", self.mask.detach().clone())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masked):
            return NotImplemented
        return self.threat == other.threat and torch.equal(self.mask.cpu(), other.mask.cpu())

    def __hash__(self) -> int:
        return hash((self.threat, self.mask.shape, int(self.mask.sum())))

    @property
    def name(self) -> str:
        """The norm, and that it is masked."""
        return f"masked {self.threat.name}"

    @property
    def tolerance(self) -> float:
        """That of the threat within."""
        return self.threat.tolerance

    def project(self, images: Tensor, candidates: Tensor) -> Tensor:
        """The nearest inside point to each candidate (N, C, H, W)."""
        return self.projector(images)(candidates)

    def projector(self, images: Tensor) -> Projector:
        """Candidates with the image outside the mask, projected; nearest, since such pixels do not move any more."""
        mask, project = self._mask(images), self.threat.projector(images)
        return lambda candidates: torch.where(mask, project(torch.where(mask, candidates, images)), images)

    def sample(self, images: Tensor, random: ImageRandom, *, use: str = "start", restart: int = 0) -> Tensor:
        """A uniform point of the ball in the pixels of the mask, then projected into the box.

        Draws: those of the threat within, for an image that has the masked pixels alone, in the order of their index.
        """
        mask = self._mask(images).expand_as(images).flatten(1)
        counts = mask.sum(dim=1)
        result = images.flatten(1).clone()
        for count in sorted(set(counts.tolist())):  # images with equally many pixels are drawn together
            if count:
                rows = (counts == count).nonzero()[:, 0]
                inside = mask[rows].nonzero()[:, 1].reshape(len(rows), count)
                pixels = result[rows].gather(1, inside)[:, None, None, :]
                drawn = self.threat.select(rows).sample(pixels, random[rows], use=use, restart=restart)
                result[rows] = result[rows].scatter(1, inside, drawn.flatten(1))
        return result.reshape(images.shape)

    def direction(self, gradient: Tensor, images: Tensor, coordinates: int = 1) -> Tensor:
        """The steepest direction within the mask, of unit norm."""
        return self.threat.direction(torch.where(self._mask(images), gradient, 0), images, coordinates)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The norm of the difference of each pair, float64 (N,); infinite if a pixel outside the mask differs."""
        outside = ((others != images) & ~self._mask(images)).flatten(1).any(dim=1)
        return self.threat.distance(images, others).masked_fill(outside, torch.inf)

    def radii(self, images: Tensor) -> Tensor | float:
        """The radii of the threat within.

        Raises:
            ValueError: if the mask does not fit the images, or there is one radius per image for another number.
        """
        self._mask(images)
        return self.threat.radii(images)

    def select(self, index: Tensor) -> "Masked":
        """The threat for some of the images, chosen by a boolean mask or indices (N,)."""
        mask = self.mask if len(self.mask) == 1 else self.mask[index.to(self.mask.device)]
        return Masked(threat=self.threat.select(index), mask=mask)

    def _mask(self, images: Tensor) -> Tensor:
        given, wanted = self.mask.shape, images.shape
        if given[0] not in (1, wanted[0]) or given[1] not in (1, wanted[1]) or given[2:] != wanted[2:]:
            raise ValueError(
                f"the mask has shape {tuple(given)}, which does not fit images of shape {tuple(wanted)}: "
                "pass one mask per image (N, 1, H, W), or one for all (1, 1, H, W)"
            )
        return self.mask.to(images.device)
