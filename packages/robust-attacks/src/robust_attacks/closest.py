"""What a minimum-norm attack hands back: the closest misclassified images found, and the accuracy curve they give."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robust_attacks._gradient import Objective
from robust_attacks.threats import Linf

Norm = Literal["L0", "L1", "L2", "Linf"]
Rule = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to which images the attacker has won, bool (N,)."""

BOX = Linf(eps=1)  # the ball around any image that holds the whole box: a minimum-norm attack may go anywhere in it
_PIXELS = (1, 2, 3)
_PUSHES = 10  # the last makes a change that the second verdict refuses 10 % longer


@dataclass(frozen=True, kw_only=True, eq=False)
class Closest:
    """The closest misclassified image that was found for every image of a call.

    Args:
        adversarial: (N, C, H, W) in [0, 1]; the clean image where none was found.
        distances: float64 (N,), how far `adversarial` is from the image in `norm`: 0 for images that are misclassified
            already, inf where none was found, and NaN where moreover the logits of the clean image are not finite.
        norm: "L0" (how many entries differ), "L1", "L2" or "Linf".

    Examples:
        >>> distances = torch.tensor([0.0, 0.1, 0.3, torch.inf], dtype=torch.float64)
        >>> closest = Closest(adversarial=torch.zeros(4, 1, 1, 1), distances=distances, norm="Linf")
        >>> closest.accuracy([0.0, 0.1, 0.2, 0.5])
        tensor([0.7500, 0.5000, 0.5000, 0.2500], dtype=torch.float64)
    """

    adversarial: Tensor
    distances: Tensor
    norm: Norm

    @property
    def found(self) -> Tensor:
        """Where a misclassified image was found, bool (N,)."""
        return self.distances < torch.inf

    def accuracy(self, eps: Sequence[float] | Tensor) -> Tensor:
        """The fraction of images that stand at each radius: those whose distance exceeds it.

        It is at least the robust accuracy, as for every attack. Images with NaN for a distance count as fallen.

        Args:
            eps: radii in the units of `norm`, >= 0, of any shape.

        Returns:
            Float64 fractions in [0, 1], in the shape of `eps`.

        Raises:
            ValueError: if a radius is negative or NaN, or there are no images.
        """
        radii = torch.as_tensor(eps, dtype=torch.float64, device=self.distances.device)
        if not bool((radii >= 0).all()):
            raise ValueError(f"eps must be numbers >= 0, one per point of the curve, got {radii.tolist()}")
        if not len(self.distances):
            raise ValueError("the accuracy of no images is undefined: the call was given an empty batch")
        falls = self.distances.nan_to_num(nan=0.0, posinf=torch.inf).sort().values
        fallen = torch.searchsorted(falls, radii.contiguous(), right=True)
        return 1 - fallen.double() / len(falls)


class Shortest:
    """The closest winning candidate seen so far, of every image of a call.

    Args:
        norm: how distances are measured.
        images: clean, (N, C, H, W).
    """

    def __init__(self, norm: Norm, images: Tensor) -> None:
        self.adversarial = images.clone()
        self.distances = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
        self.norm = norm
        self.images = images

    def show(self, candidates: Tensor, won: Tensor, distances: Tensor | None = None) -> Tensor:
        """Keep the candidates (N, C, H, W) that have won and are closer than what is kept; tells which, bool (N,).

        Their float64 distances (N,) may be passed if they are known.
        """
        if distances is None:
            distances = distance(self.norm, self.images, candidates)
        closer = won & (distances < self.distances)
        self.distances = torch.where(closer, distances, self.distances)
        self.adversarial = torch.where(closer[:, None, None, None], candidates, self.adversarial)
        return closer

    def select(self, rows: Tensor) -> "Shortest":
        """What is kept for some of the images, int64 indices, to be worked on and put back by `merge`."""
        part = Shortest(self.norm, self.images[rows])
        part.adversarial, part.distances = self.adversarial[rows], self.distances[rows]
        return part

    def merge(self, rows: Tensor, part: "Shortest") -> None:
        """Put back what `select` has handed out."""
        self.adversarial = self.adversarial.index_copy(0, rows, part.adversarial)
        self.distances = self.distances.index_copy(0, rows, part.distances)


def distance(norm: Norm, images: Tensor, others: Tensor) -> Tensor:
    """How far each pair of images is apart, float64 (N,)."""
    return length(norm, others.double() - images).flatten()


def length(norm: Norm, changes: Tensor) -> Tensor:
    """The norm of every change (N, C, H, W), summed in float64; (N, 1, 1, 1)."""
    if norm == "Linf":  # vector_norm(inf) is ten times slower
        return changes.abs().amax(dim=_PIXELS, keepdim=True).double()
    order = {"L0": 0, "L1": 1, "L2": 2}[norm]
    lengths: Tensor = torch.linalg.vector_norm(changes, order, dim=_PIXELS, keepdim=True, dtype=torch.float64)
    return lengths


def unit(vectors: Tensor) -> Tensor:
    """Vectors (N, C, H, W) divided by their L2 norm, in float64 and then rounded; zero stays zero."""
    return (vectors / length("L2", vectors).clamp_(min=1e-300)).to(vectors.dtype)


def cosine(first: float, last: float, progress: float) -> float:
    """The step size of a cosine schedule, from `first` at progress 0 to `last` at 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def farthest(norm: Norm, images: Tensor) -> Tensor:
    """The norm of the largest change inside the box, `max(x, 1 - x)` for every pixel; float64 (N, 1, 1, 1)."""
    return length(norm, torch.maximum(images, 1 - images))


def verified(
    objective: Objective,
    rule: Rule,
    shortest: Shortest,
    labels: Tensor,
    land: Callable[[Tensor], Tensor] = lambda images: images,
) -> Closest:
    """The result of a minimum-norm attack, judged by one more forward pass without autocast.

    Close to the decision boundary the second verdict may differ from the first, by the rounding of another batch size
    or of autocast. Such an image is pushed on along its change, in ten steps up to 10 % farther, until it has won.

    Args:
        objective: of this call.
        rule: who has won.
        shortest: what was found.
        labels: int64 (N,).
        land: what makes a candidate of images that were pushed, as by rounding their pixels to levels.
    """
    images, adversarial = shortest.images, shortest.adversarial
    if not len(images):
        return Closest(adversarial=adversarial, distances=shortest.distances, norm=shortest.norm)
    objective.focus(torch.arange(len(images), device=images.device))
    changed = (adversarial != images).flatten(1).any(dim=1)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        logits = objective.logits(adversarial, labels)
        won, known = rule(logits, labels), changed | logits.isfinite().all(dim=1)
        for push in range(1, _PUSHES + 1):
            rows = (changed & ~won).nonzero()[:, 0]
            if not len(rows):
                break
            objective.focus(rows)
            some = images[rows]
            farther = 1 + 0.1 * 4.0 ** (push - _PUSHES)
            pushed = land((some + farther * (adversarial[rows] - some)).clamp_(0, 1))
            has_won = rule(objective.logits(pushed, labels[rows]), labels[rows])
            adversarial = adversarial.index_copy(
                0, rows, torch.where(has_won[:, None, None, None], pushed, adversarial[rows])
            )
            won = won.index_copy(0, rows, has_won)
    adversarial = torch.where(won[:, None, None, None], adversarial, images)
    missing = torch.where(known, torch.inf, torch.nan).double()
    return Closest(
        adversarial=adversarial,
        distances=torch.where(won, distance(shortest.norm, images, adversarial), missing),
        norm=shortest.norm,
    )
