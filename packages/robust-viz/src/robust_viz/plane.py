"""The plane through an image that a decision boundary is drawn in, and the model on it."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from robust_attacks import ImageRandom, cross_entropy
from torch import Tensor

from robust_viz._purity import Model, logits_of

Norm = Literal["l2", "linf"]
RAYS = 360
RINGS = 32  # steps outwards before a crossing is bisected
HALVINGS = 5  # of a step: 32 * 2^5 is a thousandth


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """All images `image + across * side + along * ascent`, and how a model classifies them.

    Attributes:
        model: images to logits.
        image: (C, H, W) in [0, 1], at the origin.
        label: the right class.
        ascent: (C, H, W), the direction of the loss gradient, of norm 1.
        side: (C, H, W), a random direction orthogonal to it, of norm 1.
        norm: "l2", or "linf", where both directions are sign vectors and lengths are eps.
        clip: bring pixels back to [0, 1] before the model sees them.
        batch_size: images per forward pass.
    """

    model: Model
    image: Tensor
    label: int
    ascent: Tensor
    side: Tensor
    norm: Norm
    clip: bool
    batch_size: int

    @torch.no_grad()
    def look(self, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify the points `offsets` (M, 2) = (across, along).

        Returns:
            On the CPU: classes, int64 (M,); margins, float64 (M,), the logit of the label minus the largest other,
            negative where the label is not predicted; inside, bool (M,), whether the point lies in [0, 1].
        """
        classes, margins, inside = [], [], []
        for start in range(0, len(offsets), self.batch_size):
            chunk = offsets[start : start + self.batch_size].to(self.image)
            across, along = chunk.view(-1, 2, 1, 1, 1).unbind(1)
            images = self.image + across * self.side + along * self.ascent
            inside.append(((images >= 0) & (images <= 1)).flatten(1).all(1))
            logits = logits_of(self.model, images.clamp(0, 1) if self.clip else images).double()
            others = logits.clone()
            others[:, self.label] = -torch.inf
            margins.append(logits[:, self.label] - others.amax(1))
            classes.append(logits.argmax(1))
        return torch.cat(classes).cpu(), torch.cat(margins).cpu(), torch.cat(inside).cpu()

    def is_wrong(self, offsets: Tensor) -> Tensor:
        """Which of the points (M, 2) are not classified as the label, bool (M,)."""
        return self.look(offsets)[0] != self.label

    def crossings(self, directions: Tensor, reach: float, halvings: int = HALVINGS) -> Tensor:
        """How far along each of the `directions` (R, 2) the label is lost first, up to `reach`; inf if it is not.

        Looks in `RINGS` steps and then bisects, as a rule to a thousandth of `reach`.

        Returns:
            Lengths in units of `directions`, float64 (R,); upper bounds of the true distance to another class.
        """
        low = torch.zeros(len(directions), dtype=torch.float64)
        high = torch.full_like(low, torch.inf)
        for ring in range(1, RINGS + 1):
            radius = reach * ring / RINGS
            open_ = high.isinf().nonzero().squeeze(1)
            if not len(open_):
                break
            hit = self.is_wrong(directions[open_] * radius)
            high[open_[hit]] = radius
            low[open_[~hit]] = radius
        return self._bisect(directions, low, high, halvings)

    def nearest(self, reach: float, start: float = 0.0) -> tuple[float, tuple[float, float]]:
        """The least distance at which the label is lost over 360 rays, up to `reach`, and the point where.

        Walks outwards over all rays at once and stops at the first ring that is hit. Costs 360 images per ring, so
        `start` says up to where there is nothing to be found.

        Returns:
            The distance in the plane's norm, inf if there is none, and (across, along).
        """
        rays = self.rays()
        for ring in range(int(min(start / reach, 1) * RINGS) + 1, RINGS + 1):
            hit = self.is_wrong(rays * (reach * ring / RINGS))
            if hit.any():
                low = torch.full((int(hit.sum()),), reach * (ring - 1) / RINGS, dtype=torch.float64)
                lengths = self._bisect(rays[hit], low, torch.full_like(low, reach * ring / RINGS))
                across, along = (rays[hit][lengths.argmin()] * lengths.min()).tolist()
                return float(lengths.min()), (across, along)
        return math.inf, (math.inf, math.inf)

    def length(self, offsets: Tensor) -> Tensor:
        """How far points (..., 2) of the plane are from the image, in the norm."""
        return offsets.norm(dim=-1) if self.norm == "l2" else offsets.abs().sum(-1)

    def rays(self) -> Tensor:
        """Directions (360, 2) of norm 1, one per degree; in "linf" they lie on the diamond |across| + |along| = 1."""
        angle = torch.arange(RAYS, dtype=torch.float64) * (2 * math.pi / RAYS)
        rays = torch.stack([angle.cos(), angle.sin()], dim=1)
        return rays / self.length(rays)[:, None]

    def _bisect(self, directions: Tensor, low: Tensor, high: Tensor, halvings: int = HALVINGS) -> Tensor:
        found = high.isfinite()
        for _ in range(halvings):
            if not found.any():
                break
            middle = (low[found] + high[found]) / 2
            hit = self.is_wrong(directions[found] * middle[:, None])
            high[found] = torch.where(hit, middle, high[found])
            low[found] = torch.where(hit, low[found], middle)
        return high


def directions(model: Model, image: Tensor, label: int, norm: Norm, random: ImageRandom) -> tuple[Tensor, Tensor]:
    """The direction of the loss gradient at `image` (C, H, W) and a random one orthogonal to it, both of norm 1.

    Warns:
        UserWarning: if the gradient is zero, as for a saturated model, and a random direction takes its place.
    """
    leaf = image[None].clone().requires_grad_()
    loss = cross_entropy(logits_of(model, leaf), torch.tensor([label], device=image.device)).sum()
    gradient = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
    gradient = torch.zeros_like(image) if gradient is None else gradient[0].nan_to_num(nan=0.0)
    if not gradient.any():
        warnings.warn(
            "the loss has a zero gradient at the image (a saturated or non-differentiable model), so the vertical "
            "axis is a random direction",
            UserWarning,
            stacklevel=3,
        )
        gradient = random.normal("boundary/gradient", image.shape)[0].to(image)
    if norm == "l2":
        ascent = _unit(gradient)
        side = random.normal("boundary/side", image.shape)[0].to(image)
        for _ in range(2):  # the second time removes the rounding of the first
            side = side - (side * ascent).sum() * ascent
        return ascent, _unit(side)
    ascent = gradient.sign()
    return ascent, _orthogonal_signs(ascent, random)


def _unit(direction: Tensor) -> Tensor:
    direction = direction / direction.abs().amax()  # a gradient of 1e-30 has a squared norm of 0 in float32
    unit: Tensor = direction / torch.linalg.vector_norm(direction)
    return unit


def _orthogonal_signs(signs: Tensor, random: ImageRandom) -> Tensor:
    """Random signs that agree with `signs` on exactly as many pixels as they disagree."""
    keys = random.uniform("boundary/side", signs.shape)[0].to(signs.device).flatten()
    flat = signs.flatten()
    result = torch.where(keys < 0.5, -1.0, 1.0).to(signs)
    used = flat.nonzero().squeeze(1)
    order = used[keys[used].argsort()]
    half = len(order) // 2
    result[order[:half]] = flat[order[:half]]
    result[order[half : 2 * half]] = -flat[order[half : 2 * half]]
    result[order[2 * half :]] = 0  # the odd one out
    return result.view_as(signs)
