"""Pyramid perturbations for training: coarse cells may change much, single pixels little."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_attacks._checks import Model
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine, seeded
from robust_attacks._settings import check_count, check_loss, check_number, check_step_size
from robust_attacks._soft_labels import bound, check_classes, check_training_call
from robust_attacks.losses import Loss, Targeted, cross_entropy
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf


@contextlib.contextmanager
def same_noise(random: ImageRandom | int) -> Iterator[None]:
    """Let a model in training mode draw the same masks (dropout, stochastic depth) as `Pyramid` with this `random`.

    Inside, torch's random states of the CPU and of every CUDA device in use are seeded from the seed; afterwards they
    are as before. One forward pass per `with`: a second pass inside would go on drawing. The masks belong to places in
    the batch, not to images, so the clean and the adversarial batch must be passes of their own, of equal size and in
    the same order. Give every training step its own seed, or all steps share one mask.

    Args:
        random: what the attack was called with, or its seed.

    Raises:
        TypeError: if it is neither.

    Examples:
        >>> from robust_attacks.pyramid import Pyramid, same_noise
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3), torch.nn.Dropout(0.1)).train()
        >>> images, labels = torch.rand(2, 3, 4, 4), torch.tensor([0, 2])
        >>> step = 17
        >>> random = ImageRandom(seed=step)
        >>> adversarial = Pyramid(cells=(4, 2, 1))(model, images, labels, random=random)
        >>> with same_noise(random):
        ...     clean_loss = functional.cross_entropy(model(images), labels)
        >>> with same_noise(random):
        ...     loss = clean_loss + functional.cross_entropy(model(adversarial), labels)
        >>> loss.backward()
    """
    seed = random.seed if isinstance(random, ImageRandom) else random
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"same_noise needs the ImageRandom of the attack or its seed, an int, got {random!r}")
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)  # type: ignore[no-untyped-call]
    with seeded({torch.device("cuda", index) for index in devices}, seed):
        yield


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Multi-scale perturbation of PyramidAT: `clip(x + sum_s m_s up(d_s))`, each grid d_s of cells within eps.

    Herrmann, Sargent, Jiang, Zabih, Chang, Liu, Krishnan, Sun, "Pyramid adversarial training improves ViT performance",
    CVPR 2022, arXiv:2111.15121, section 3.2. All grids start at 0 and step together along the sign of their gradients,
    towards a class that each image draws from all K classes, its own included. The paper's numbers are for images in
    [-1, 1]; here they are halved. Its code clips after every grid, its formula and this class clip once.

    For training: labels may be soft, nothing is verified, nothing stops early, and the model stays in the mode in which
    it is (the paper: training mode). Every pass draws the same masks of dropout and stochastic depth; a training loop
    gets them for its own two passes with `same_noise`. Statistics of batch norms never move.

    An image costs exactly `steps` forward and backward passes. The result is not near the image in any usual norm: a
    pixel changes by at most `eps * sum(multipliers)`, that is 93/255, and stays in [0, 1].

    Args:
        cells: sides of the square cells of each grid in pixels, >= 1. Upsampling is nearest: a grid has
            `ceil(H / cell)` by `ceil(W / cell)` cells laid from the top left, and what goes past the image is cut off.
        multipliers: the weight m_s of each grid, positive, as many as cells.
        eps: how far a cell's value may go from 0, in units of [0, 1] pixels, 0 <= eps <= 1, before it is multiplied.
        step_size: how far it goes per step, same units; None means `eps / 6`.
        steps: gradient steps, >= 1.
        random_target: descend `loss` towards a random class; False: ascend `loss` at the labels (hard or soft).
        loss: logits (N, K), labels (N,) -> losses (N,); it meets soft labels (N, K) only with random_target=False.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if a setting is out of range, or cells and multipliers do not match.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), images[:, 0, 0, 0] * 0), dim=1)
        >>> attack = Pyramid(cells=(2, 1), multipliers=(4, 1), eps=0.02, steps=6, random_target=False)
        >>> attack(model, torch.full((1, 1, 1, 3), 0.5), torch.tensor([0])).flatten()
        tensor([0.4000, 0.4000, 0.4000])
    """

    cells: Sequence[int] = (32, 16, 1)
    multipliers: Sequence[float] = (20.0, 10.0, 1.0)
    eps: float = 3 / 255
    step_size: float | None = None
    steps: int = 5
    random_target: bool = True
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        cells, multipliers = _listed("cells", self.cells), _listed("multipliers", self.multipliers)
        for cell in cells:
            check_count("Pyramid", "every cell side", cell)
        weights = [check_number("Pyramid", "every multiplier", weight, open_below=True) for weight in multipliers]
        if not cells or len(cells) != len(weights):
            raise ValueError(
                f"Pyramid: cells and multipliers must be as many, and at least one, got {len(cells)} cells "
                f"{cells} and {len(weights)} multipliers {multipliers}"
            )
        object.__setattr__(self, "cells", tuple(int(cell) for cell in cells))
        object.__setattr__(self, "multipliers", tuple(weights))
        object.__setattr__(self, "eps", check_number("Pyramid", "eps", self.eps, most=1))
        check_step_size("Pyramid", self.step_size, default="eps / 6")
        check_count("Pyramid", "steps", self.steps)
        check_loss("Pyramid", self.loss)
        if self.random_target and isinstance(self.loss, Targeted):
            raise ValueError(
                "Pyramid: random_target turns the loss round itself: pass the plain loss, or random_target=False to "
                "move towards labels of your own"
            )

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1].
            labels: classes, int64 (N,), or soft labels, float (N, K). With `random_target` they are only checked.
            random: the images' random streams (the targets) and the seed of the masks; None draws one seed from
                torch's CPU generator, and then `same_noise` cannot know it.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        classes, random = check_training_call(images, labels, random)
        if not len(images):
            return images.detach().clone()
        with pristine(model, images, random.seed) as model:
            images, classes, labels = images.detach().clone(), classes.clone(), labels.detach().clone()
            objective = Objective(_masked(model, random), self._aim(labels, random), images)
            step = self.eps / 6 if self.step_size is None else self.step_size
            grids = [images.new_zeros(self._grid(images, cell)) for cell in self.cells]
            for _ in range(self.steps):
                summed = self._sum(images, grids)
                gradient, _logits = objective.gradient(summed.clamp(0, 1), classes)
                # What the clip lets through. A pixel on a face of the box may leave it: else black images stayed black.
                gradient = torch.where((summed >= 0) & (summed <= 1), gradient, 0)
                grids = [
                    (grid + step * _pooled(gradient, cell).sign()).clamp_(-self.eps, self.eps)
                    for cell, grid in zip(self.cells, grids, strict=True)
                ]
            reach = Linf(eps=min(1.0, (1 + 1e-5) * self.eps * sum(self.multipliers) + 1e-6))  # and float32's rounding
            return objective.finish(reach, self._sum(images, grids).clamp_(0, 1))

    def _aim(self, labels: Tensor, random: ImageRandom) -> Loss:
        """What rises: minus the loss at the images' random targets, or the loss at the given labels."""
        if not self.random_target:
            return bound(self.loss, labels)

        def towards_target(logits: Tensor, _: Tensor) -> Tensor:
            check_classes(labels, logits)
            return -self.loss(logits, random.integers("pyramid/target", logits.shape[1], 1)[:, 0])

        return towards_target

    def _grid(self, images: Tensor, cell: int) -> tuple[int, int, int, int]:
        count, channels, height, width = images.shape
        return count, channels, -(-height // cell), -(-width // cell)

    def _sum(self, images: Tensor, grids: list[Tensor]) -> Tensor:
        """The images plus all grids, upsampled and weighted; not clipped."""
        height, width = images.shape[2:]
        total = images
        for cell, multiplier, grid in zip(self.cells, self.multipliers, grids, strict=True):
            fine = grid.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3) if cell > 1 else grid
            total = total + multiplier * fine[:, :, :height, :width]
        return total


def _masked(model: Model, random: ImageRandom) -> Model:
    """The model with the same masks in every pass."""

    def one_pass(images: Tensor) -> Tensor:
        with same_noise(random):
            return model(images)

    return one_pass


def _pooled(gradient: Tensor, cell: int) -> Tensor:
    """Sums of the gradient (N, C, H, W) over the cells: the gradient of a nearest-upsampled grid."""
    if cell == 1:
        return gradient
    count, channels, height, width = gradient.shape
    padded = functional.pad(gradient, (0, -width % cell, 0, -height % cell))
    return padded.reshape(count, channels, padded.shape[2] // cell, cell, padded.shape[3] // cell, cell).sum((3, 5))


def _listed(name: str, given: Any) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"Pyramid: {name} must be a sequence with one entry per grid, as (32, 16, 1), got {given!r}")
    return tuple(given)
