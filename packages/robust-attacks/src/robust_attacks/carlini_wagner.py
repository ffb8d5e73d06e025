"""The attack of Carlini and Wagner."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robust_attacks._adam import adam_step
from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_number
from robust_attacks.closest import BOX, Closest, Shortest, verified
from robust_attacks.losses import Loss, Targeted, margin, succeeded
from robust_attacks.random import ImageRandom

_LARGEST_CONSTANT = 1e10
_STEEPEST = 1e15  # slopes are cut to it, so that their squares stay in float32


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimise the squared L2 distance plus c times the lack of margin with Adam, and search for the best c.

    Carlini, Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, arXiv:1608.04644, section
    VI.A with the loss f_6. The change of variables `x' = (tanh(u) + 1) / 2` keeps pixels in the box. A search is
    aborted for each image by itself, so that no image decides over another's; it is when the least loss seen has not
    fallen by 0.01 % within a tenth of the steps.

    An image costs at most `searches` times `steps` forward and backward passes, and two forward passes more.

    Args:
        confidence: margin between the logits that an image must reach to count as found, >= 0.
        learning_rate: of Adam, in units of u, > 0.
        steps: points that are judged in each search, >= 1.
        searches: how many values of c are tried, >= 1; of ten or more, the last is the least that has succeeded.
        initial_constant: the first c, > 0; it grows tenfold until it succeeds, and then is bisected.
        abort_early: stop searches that make no progress, which saves most of the time.
        loss: `margin`, or `targeted(margin)`.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if it is out of range.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.8), dim=1)
        >>> attack = CarliniWagner(steps=200, searches=6)
        >>> closest = attack.minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
        >>> closest.distances.round(decimals=2)  # to a sum of 0.8: 0.2 / sqrt(2)
        tensor([0.1400], dtype=torch.float64)
    """

    confidence: float = 0.0
    learning_rate: float = 0.01
    steps: int = 10_000
    searches: int = 9
    initial_constant: float = 1e-3
    abort_early: bool = True
    loss: Loss = margin

    def __post_init__(self) -> None:
        name = "CarliniWagner"
        check_number(name, "confidence", self.confidence)
        check_number(name, "learning_rate", self.learning_rate, open_below=True)
        check_count(name, "steps", self.steps)
        check_count(name, "searches", self.searches)
        check_number(name, "initial_constant", self.initial_constant, most=_LARGEST_CONSTANT, open_below=True)
        if not isinstance(self.abort_early, bool):
            raise TypeError(f"{name}: abort_early must be True or False, got {self.abort_early!r}")
        plain = self.loss.loss if isinstance(self.loss, Targeted) else self.loss
        if plain is not margin:
            raise ValueError(
                f"{name}: loss must be margin or targeted(margin), in which confidence is measured, got {self.loss!r}"
            )

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """The closest misclassified images, and the given where none was found; arguments as for `minimum`."""
        objective, closest = self._search(model, images, labels, random)
        return objective.finish(BOX, closest.adversarial)

    def minimum(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Closest:
        """Find the closest misclassified images under L2; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
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
            objective = Objective(model, self._margins, images)
            shortest = Shortest("L2", images)
            if len(images):
                self._bisect(objective, shortest, labels)
            return objective, verified(objective, self._wins, shortest, labels)

    def _margins(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss without its rule of success, which `_wins` replaces: to predict the target may not be enough."""
        return self.loss(logits, labels)

    def _wins(self, logits: Tensor, labels: Tensor) -> Tensor:
        return succeeded(self.loss, logits, labels) & (self._margins(logits, labels) >= self.confidence)

    def _bisect(self, objective: Objective, shortest: Shortest, labels: Tensor) -> None:
        """Try `searches` constants on every image that does not win as it is."""
        images = shortest.images
        with torch.no_grad():
            logits = objective.logits(images, labels)
        won = self._wins(logits, labels)
        shortest.show(images, won)
        rows = (~won & logits.isfinite().all(dim=1)).nonzero()[:, 0]
        if not len(rows):
            return
        constant = torch.full((len(rows),), self.initial_constant, dtype=torch.float64, device=images.device)
        lower, upper = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for search in range(self.searches):
            if search == self.searches - 1 and self.searches >= 10:
                constant = upper.clamp(max=_LARGEST_CONSTANT)
            found = self._minimise(objective, shortest, labels, rows, constant)
            upper = torch.where(found, torch.minimum(upper, constant), upper)
            lower = torch.where(found, lower, torch.maximum(lower, constant))
            constant = torch.where(upper < torch.inf, (lower + upper) / 2, 10 * constant).clamp_(max=_LARGEST_CONSTANT)

    def _minimise(
        self, objective: Objective, shortest: Shortest, labels: Tensor, rows: Tensor, constant: Tensor
    ) -> Tensor:
        """One search with one constant for each of the images `rows`: which were found, bool (n,).

        Aborted images leave the batch at the end of a tenth of the steps.
        """
        all_found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        places = torch.arange(len(rows), device=rows.device)
        part, labels = shortest.select(rows), labels[rows]
        variable = ((2 * part.images - 1) * (1 - 1e-6)).atanh_()
        state = {
            "constant": constant.to(variable.dtype),
            "variable": variable,
            "mean": torch.zeros_like(variable),
            "square": torch.zeros_like(variable),
            "least": torch.full_like(constant, torch.inf),
            "found": all_found.clone(),
        }
        objective.focus(rows)
        before = state["least"]
        period = math.ceil(self.steps / 10)
        for step in range(self.steps):
            losses = self._step(objective, part, labels, state, step)
            state["least"] = torch.minimum(state["least"], losses)
            if self.abort_early and step % period == 0:
                stays = ~(state["least"] > 0.9999 * before)
                before = state["least"]
                if step and step < self.steps - 1:
                    shortest.merge(rows, part)
                    all_found = all_found.index_copy(0, places, state["found"])
                    kept = stays.nonzero()[:, 0]
                    if not len(kept):
                        return all_found
                    if len(kept) < len(rows):
                        rows, places, labels, before = rows[kept], places[kept], labels[kept], before[kept]
                        part = shortest.select(rows)
                        state = {name: tensor[kept] for name, tensor in state.items()}
                        objective.focus(rows)
        shortest.merge(rows, part)
        return all_found.index_copy(0, places, state["found"])

    def _step(
        self, objective: Objective, part: Shortest, labels: Tensor, state: dict[str, Tensor], step: int
    ) -> Tensor:
        """Judge the points of one step, and move the variables by Adam; the losses, float64 (n,)."""
        tanh = state["variable"].tanh()
        points = (tanh + 1) / 2
        gradient, logits = objective.gradient(points, labels)
        margins = self._margins(logits, labels)
        changes = points - part.images
        squares = changes.double().square().sum(dim=(1, 2, 3))
        won = self._wins(logits, labels)
        part.show(points, won, squares.sqrt())
        state["found"] |= won
        lack = (self.confidence - margins).clamp(min=0)
        pull = torch.where(lack > 0, state["constant"], 0)[:, None, None, None]
        push = (pull * gradient).clamp_(-_STEEPEST, _STEEPEST)
        slope = (2 * changes - push) * ((1 - tanh * tanh) / 2)
        state["variable"].sub_(adam_step(slope, state["mean"], state["square"], step + 1, self.learning_rate))
        return squares + state["constant"].double() * lack
