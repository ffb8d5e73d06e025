"""One rectangular patch per image, with any pixels, where it hurts most."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective, unit_l1
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number
from robust_attacks._windows import Window, check_place, check_size, window_of
from robust_attacks.losses import Loss, margin, succeeded
from robust_attacks.masked import Masked
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf

_ANY = Linf(eps=1.0)


@dataclass(frozen=True, kw_only=True)
class AdversarialPatch:
    """Replace one rectangle of every image by whatever the model gets wrong; no pixel outside it changes.

    Per image, as in Karmon, Zoran, Goldberg, "LaVAN: localized and visible adversarial noise", ICML 2018,
    arXiv:1801.02608; the search for the place follows Rao, Stutz, Schiele, "Adversarial training against
    location-optimized adversarial patches", ECCV Workshops 2020, arXiv:2005.02313, with gradients in place of trial
    moves. One patch for all images (Brown et al.) is `UniversalPatch`. The steps are those of `MIFGSM`: gradients
    divided by their L1 norm, gathered with momentum, and the sign of the sum.

    An image that the attacker has won when it is clean comes back unchanged; else the first iterate that wins is
    returned, or the last one of largest loss. Costs one forward pass (with `place="searched"` a backward pass more),
    then up to `restarts` runs of `steps` forward and backward passes and one forward pass.

    Args:
        size: height and width of the patch in pixels, or one number for both; None means a square of 5 % of the area.
        place: `"searched"` scores the windows on a grid of a quarter of the patch size by the sum of the absolute
            gradients in them and runs on the best ones; `"random"` is uniform over all places; `(row, column)` is the
            upper left pixel of the patch.
        steps: gradient steps, >= 1.
        step_size: change of every pixel in the first steps, in [0, 1] pixel units.
        halve_every: after so many steps the step size is halved, >= 1.
        momentum: decay of the gathered gradients, in [0, 1].
        restarts: how many runs an image gets at most, 1..256: each has new noise to start from and, unless the place
            is given, another place. None means 5 when the place is searched, else 1.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1; every pass is made
            that many times.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 8 - images.sum(dim=(1, 2, 3))), dim=1)
        >>> images, labels = torch.full((1, 1, 3, 3), 0.5), torch.tensor([0])
        >>> adversarial = AdversarialPatch(size=2, place=(1, 0))(model, images, labels, random=ImageRandom(seed=0))
        >>> (adversarial != images)[0, 0].int()
        tensor([[0, 0, 0],
                [1, 1, 0],
                [1, 1, 0]], dtype=torch.int32)
    """

    size: int | tuple[int, int] | None = None
    place: Literal["searched", "random"] | tuple[int, int] = "searched"
    steps: int = 100
    step_size: float = 0.05
    halve_every: int = 25
    momentum: float = 0.9
    restarts: int | None = None
    loss: Loss = margin
    eot: int = 1

    def __post_init__(self) -> None:
        check_size("AdversarialPatch", self.size)
        check_place("AdversarialPatch", self.place)
        check_count("AdversarialPatch", "steps", self.steps)
        check_number("AdversarialPatch", "step_size", self.step_size, most=1, open_below=True)
        check_count("AdversarialPatch", "halve_every", self.halve_every)
        check_number("AdversarialPatch", "momentum", self.momentum, most=1)
        if self.restarts is not None:
            check_count("AdversarialPatch", "restarts", self.restarts, most=256)
        check_loss("AdversarialPatch", self.loss)
        check_count("AdversarialPatch", "eot", self.eot)

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Put a patch on every image and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1], no smaller than the patch.
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator. Draws: `patch/start`
                by the flat pixel index, `patch/place`.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, or the patch does not fit into the images.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        random = check_call(_ANY, images, labels, random)
        window = window_of("AdversarialPatch", images, self.size)
        if isinstance(self.place, tuple):
            window.check_place("AdversarialPatch", self.place)
        if not len(images):
            return images.detach().clone()
        with pristine(model, images, random.seed) as model:
            images, labels = images.detach().clone(), labels.clone()
            objective = Objective(model, self.loss, images, self.eot)
            logits, corners = self._places(objective, window, images, labels, random)
            left = (~succeeded(self.loss, logits, labels)).nonzero()[:, 0]
            result, masks = self._best_of_restarts(objective, window, images, labels, random, corners, left)
            return objective.finish(Masked(threat=_ANY, mask=masks), result)

    def _places(
        self, objective: Objective, window: Window, images: Tensor, labels: Tensor, random: ImageRandom
    ) -> tuple[Tensor, Tensor]:
        """The logits of the clean images, and the upper left corner of every run, int64 (N, restarts, 2)."""
        if self.place == "searched":
            gradient, logits = objective.gradient(images, labels)
            return logits, window.best_places(gradient.abs(), self.restarts or 5)
        with torch.no_grad():
            logits = objective.logits(images, labels)
        runs = self.restarts or 1
        if self.place == "random":
            return logits, window.random_places("patch/place", random, runs)
        return logits, torch.tensor(self.place, device=images.device).expand(len(images), runs, 2)

    def _best_of_restarts(
        self,
        objective: Objective,
        window: Window,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom,
        corners: Tensor,
        left: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The best of the runs for the images with the indices `left`, and where their patches lie (N, 1, H, W)."""
        result, masks = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        highest = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
        for run in range(corners.shape[1]):
            if not len(left):
                break
            mask = window.mask(corners[left, run])
            points, losses, won = self._climb(objective, images, labels, random, mask, left, run)
            better = (won | (losses > highest[left]))[:, None, None, None]
            result[left] = torch.where(better, points, result[left])
            masks[left] = torch.where(better, mask, masks[left])
            highest[left] = torch.where(losses > highest[left], losses, highest[left])
            left = left[~won]
        return result, masks

    def _climb(
        self,
        objective: Objective,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom,
        mask: Tensor,
        rows: Tensor,
        run: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One run for the images with the indices `rows`: points, their losses in float64, and which of them win.

        An image that has won is not attacked any more; on a GPU it is dropped every ten steps only, because that
        takes a look from the host.
        """
        start = random[rows].uniform("patch/start", images.shape[1:], restart=run, dtype=images.dtype)
        points = torch.where(mask, start, images[rows])
        result, velocity = points.clone(), torch.zeros_like(points)
        losses = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=images.device)
        done = torch.zeros_like(rows, dtype=torch.bool)
        active = torch.arange(len(rows), device=rows.device)
        for step in range(self.steps + 1):
            objective.focus(rows[active])
            truth = labels[rows[active]]
            if step < self.steps:
                gradient, logits = objective.gradient(points, truth)
            else:
                with torch.no_grad():
                    logits = objective.logits(points, truth)
            with torch.no_grad():
                now = objective.losses(logits, truth).double()
            halted = done[active]
            losses[active] = torch.where(halted, losses[active], now)
            result[active] = torch.where(halted[:, None, None, None], result[active], points)
            done[active] = halted | succeeded(self.loss, logits, truth)
            if step == self.steps:
                break
            inside = mask[active]
            velocity = velocity.mul_(self.momentum).add_(unit_l1(torch.where(inside, gradient, 0)))
            length = self.step_size * 0.5 ** (step // self.halve_every)
            points = (points + length * velocity.sign()).clamp_(0, 1)
            if _host.can_look(done) or step % 10 == 9:
                kept = (~done[active]).nonzero()[:, 0]
                if not len(kept):
                    break
                if len(kept) < len(active):
                    active, points, velocity = active[kept], points[kept], velocity[kept]
        return result, losses, done
