"""DeepFool."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_number
from robust_attacks.closest import BOX, Closest, Norm, Shortest, length, verified
from robust_attacks.losses import margin, succeeded
from robust_attacks.random import ImageRandom

_DUALS: dict[Norm, Norm] = {"L2": "L2", "Linf": "L1"}
_BEYOND = 1e-4  # every step goes this much farther than to the linearised boundary
_FAR = 1e6  # a step is cut to this length where a gradient all but vanishes
_LOOKS = 10  # on a GPU finished images leave the batch every so many steps


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Step to the nearest boundary of the linearised model until the image is misclassified.

    Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks", CVPR
    2016, arXiv:1511.04599, algorithm 2; the overshoot is part of every iterate, as in the authors' code. The boundaries
    are those with the likeliest classes of the clean image. The attack is not defined for targets.

    An image costs at most `steps` + 2 forward passes and `steps` times (`candidates` - 1) backward passes; it leaves
    the batch once it is misclassified.

    Args:
        norm: "L2" or "Linf", the norm of the steps.
        steps: steps at most, >= 1.
        overshoot: by which fraction the sum of all steps is lengthened, >= 0.
        candidates: how many classes are looked at, the label among them, >= 2; all, if the model has fewer.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if it is out of range.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.8), dim=1)
        >>> closest = DeepFool(norm="Linf").minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        >>> closest.distances.round(decimals=4)  # 1.02 (0.2 / 2 + 1e-4)
        tensor([0.1021], dtype=torch.float64)
    """

    norm: Literal["L2", "Linf"] = "L2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    def __post_init__(self) -> None:
        if self.norm not in _DUALS:
            raise ValueError(f'DeepFool: norm must be "L2" or "Linf", got {self.norm!r}')
        check_count("DeepFool", "steps", self.steps)
        check_number("DeepFool", "overshoot", self.overshoot)
        check_count("DeepFool", "candidates", self.candidates)
        if self.candidates < 2:
            raise ValueError(f"DeepFool: candidates must be at least 2, the label and another, got {self.candidates}")

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """The misclassified images found, and the given where none was; arguments as for `minimum`."""
        objective, closest = self._search(model, images, labels, random)
        return objective.finish(BOX, closest.adversarial)

    def minimum(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Closest:
        """Find misclassified images near the given under the norm; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, int64 (N,).
            random: not used by this attack beyond the seed for models that randomise; None draws one seed from
                torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        objective, closest = self._search(model, images, labels, random)
        return replace(closest, adversarial=objective.finish(BOX, closest.adversarial))

    def _search(
        self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom | None
    ) -> tuple[Objective, Closest]:
        random = check_call(BOX, images, labels, random)
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            objective = _Boundaries(model, margin, images)
            shortest = Shortest(self.norm, images)
            if len(images):
                self._walk(objective, shortest, labels)
            return objective, verified(objective, partial(succeeded, margin), shortest, labels)

    def _walk(self, objective: "_Boundaries", shortest: Shortest, labels: Tensor) -> None:
        """Move every image until it is misclassified."""
        rows = torch.arange(len(labels), device=labels.device)
        part, walked = shortest, torch.zeros_like(shortest.images)
        points, others = part.images, None
        for step in range(self.steps + 1):
            leaf = points.detach().requires_grad_()
            logits = objective.logits(leaf, labels)
            won = succeeded(margin, logits.detach(), labels)
            part.show(points, won)
            if step == self.steps:
                break
            if others is None:
                count = min(self.candidates, logits.shape[1]) - 1
                others = logits.detach().scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices
            change = self._nearest(objective, leaf, logits, labels, others)
            walked = torch.where(won[:, None, None, None], walked, walked + change)
            points = (part.images + (1 + self.overshoot) * walked).clamp_(0, 1)
            if _host.can_look(labels) or step % _LOOKS == _LOOKS - 1:
                kept = (~won).nonzero()[:, 0]
                if len(kept) < len(won):
                    if part is not shortest:
                        shortest.merge(rows, part)
                    rows, labels, others = rows[kept], labels[kept], others[kept]
                    part, walked, points = shortest.select(rows), walked[kept], points[kept]
                    objective.focus(rows)
                if not len(kept):
                    break
        if part is not shortest:
            shortest.merge(rows, part)

    def _nearest(
        self, objective: "_Boundaries", leaf: Tensor, logits: Tensor, labels: Tensor, others: Tensor
    ) -> Tensor:
        """The step to the nearest of the linearised boundaries with the classes `others` (n, k)."""
        least = torch.full((len(labels), 1, 1, 1), torch.inf, dtype=torch.float64, device=labels.device)
        best = torch.zeros_like(leaf)
        for gaps, gradient in objective.slopes(leaf, logits, labels, others):
            distances = gaps / length(_DUALS[self.norm], gradient)
            nearer = distances < least  # never true of NaN or of vanishing gradients
            least = torch.where(nearer, distances, least)
            best = torch.where(nearer, gradient, best)
        reach = (least + _BEYOND).clamp_(max=_FAR)
        if self.norm == "Linf":
            return (best.sign() * reach).to(best.dtype)
        return (best / length("L2", best).clamp_(min=1e-300) * reach).to(best.dtype)


class _Boundaries(Objective):
    """An objective that can tell the slopes towards several classes from one forward pass."""

    def slopes(self, leaf: Tensor, logits: Tensor, labels: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each column of `others` (n, k), how far each image is from that class, and the slope towards it.

        The first is |z_k - z_y|, float64 (n, 1, 1, 1), the second the gradient of z_k - z_y, (n, C, H, W).
        """
        for column in range(others.shape[1]):
            ahead = (logits.gather(1, others[:, column : column + 1]) - logits.gather(1, labels[:, None]))[:, 0]
            more = column < others.shape[1] - 1
            gradient = None
            if ahead.requires_grad:
                gradient = torch.autograd.grad(ahead.sum(), leaf, retain_graph=more, allow_unused=True)[0]
            if gradient is None:
                self._flat = True
                gradient = torch.zeros_like(leaf)
            self.broken[self._rows] |= ~gradient.abs().amax(dim=(1, 2, 3)).isfinite()
            # A new tensor: autograd may hand out expanded ones.
            yield ahead.detach().double().abs()[:, None, None, None], gradient.nan_to_num(nan=0.0)
