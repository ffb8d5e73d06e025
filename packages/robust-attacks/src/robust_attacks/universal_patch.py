"""One patch for all images, trained to work wherever it is put."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from robust_attacks._adam import adam_step
from robust_attacks._batches import Batches, source, stream
from robust_attacks._checks import Model, check_images, check_labels
from robust_attacks._fit import Epoch, Tally
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number
from robust_attacks._windows import check_size, window_of
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.pyramid import same_noise
from robust_attacks.random import ImageRandom


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPatch:
    """A patch that can be put on any image, and an attack that does so; made by `UniversalPatch.fit`.

    Args:
        pixels: (C, h, w) in [0, 1].
        scale: least and largest factor by which the sides of the patch are multiplied when it is put on an image.
        success: share of the images that it won in the last epoch of its training: misclassified ones, or for a
            `targeted` loss those on target. They were trained on: measure it on others.
    """

    pixels: Tensor = field(repr=False)
    scale: tuple[float, float]
    success: float

    def apply(self, images: Tensor, random: ImageRandom | None = None) -> Tensor:
        """New images (N, C, H, W) with the patch at a random place and scale; nothing else in them changes.

        Draws: `universal-patch/apply`, three per image: scale, row, column.

        Raises:
            TypeError: if `images` are of a wrong type.
            ValueError: if their shape or values are wrong, or the patch does not fit into them.
        """
        check_images(images)
        _check_fit(self.pixels, self.scale, images)
        random = (ImageRandom.fresh(len(images)) if random is None else random).of(images)
        with torch.no_grad():
            pasted = _paste(
                images,
                self.pixels.to(images),
                self.scale,
                random.uniform("universal-patch/apply", (3,), dtype=torch.float64),
            )
        return torch.empty_like(images, requires_grad=False).copy_(pasted)

    def __call__(
        self,
        model: Model | None,  # noqa: ARG002 -- an attack's signature
        images: Tensor,
        labels: Tensor,
        *,
        random: ImageRandom | None = None,
    ) -> Tensor:
        """`apply`, in the form of every attack; model and labels play no part."""
        check_images(images)
        check_labels(labels, images)
        return self.apply(images, random)


@dataclass(frozen=True, kw_only=True)
class UniversalPatch:
    """Train one patch that fools a model on many images, at random places and scales.

    Brown, Mané, Roy, Abadi, Gilmer, "Adversarial patch", 2017, arXiv:1712.09665, equation 1: climb the expectation of
    the loss over images, places and scales (EOT: Athalye et al., ICML 2018, arXiv:1707.07397), here by Adam with
    clipping to [0, 1]. The paper also rotates the patch; this does not. It is a training loop and no evaluation of
    single images: for the worst patch of each image use `AdversarialPatch`.

    An image costs `draws` forward and backward passes per epoch.

    Args:
        size: height and width of the patch in pixels, or one number for both; None means a square of 5 % of the area.
        scale: least and largest factor for the sides, drawn uniformly and rounded to whole pixels.
        epochs: how often every image is used, >= 1.
        draws: places and scales per image and step, >= 1.
        learning_rate: of Adam, in [0, 1] pixel units.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,); `targeted(...)` with targets as labels.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 8 - images.sum(dim=(1, 2, 3))), dim=1)
        >>> batches = [(torch.full((4, 1, 4, 4), 0.3), torch.zeros(4, dtype=torch.int64))]
        >>> patch = UniversalPatch(size=2, scale=(1, 1.5), epochs=30).fit(model, batches)
        >>> patch.pixels, patch.success
        (tensor([[[0., 0.],
                 [0., 0.]]]), 1.0)
    """

    size: int | tuple[int, int] | None = None
    scale: tuple[float, float] = (0.8, 1.2)
    epochs: int = 5
    draws: int = 1
    learning_rate: float = 0.05
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        check_size("UniversalPatch", self.size)
        scale: Any = self.scale
        if not isinstance(scale, tuple) or len(scale) != 2:
            raise TypeError(f"UniversalPatch: scale must be a tuple (least, largest), got {scale!r}")
        low = check_number("UniversalPatch", "least scale", self.scale[0], open_below=True)
        check_number("UniversalPatch", "largest scale", self.scale[1], least=low)
        check_count("UniversalPatch", "epochs", self.epochs)
        check_count("UniversalPatch", "draws", self.draws)
        check_number("UniversalPatch", "learning_rate", self.learning_rate, open_below=True)
        check_loss("UniversalPatch", self.loss)

    def fit(
        self,
        model: Model,
        batches: "Batches | Dataset[Any]",
        *,
        seed: int = 0,
        batch_size: int = 128,
        device: torch.device | str | None = None,
        progress: Callable[[Epoch], None] | None = None,
    ) -> TrainedPatch:
        """Find the patch; nothing that is given changes, and torch's random states are as before.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K), in the mode in which it is.
            batches: batches of images (N, C, H, W) in [0, 1] and labels (N,), gone through once per epoch in their own
                order (a shuffling DataLoader draws it from the seed), which may differ in height and width; or a
                map-style Dataset of single images and labels, which is shuffled by the seed in every epoch.
            seed: of the start, of the order of a Dataset, of all that torch draws meanwhile, and of places and scales,
                which belong to the number of an image in its epoch.
            batch_size: for a Dataset.
            device: where to move the batches; None leaves them where they are.
            progress: called with an `Epoch` after every epoch.

        Raises:
            TypeError: if batches, images, labels or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, the patch does not fit into the images, there are none, or
                they can be gone through only once.

        Warns:
            RuntimeWarning: if logits or gradients were not finite, or there was no gradient to follow.
        """
        epochs = source(batches, seed, batch_size)
        pixels: Tensor | None = None
        tally, age, success = Tally(self.epochs), 0, 0.0
        with same_noise(seed), pristine(model, torch.empty(0), seed) as model:
            for epoch in range(self.epochs):
                number = 0
                for images, labels in stream(epochs(epoch), device):
                    if pixels is None:
                        pixels = self._start(images, seed)
                        first, second = torch.zeros_like(pixels), torch.zeros_like(pixels)
                    _check_fit(pixels, self.scale, images)
                    random = ImageRandom(seed, torch.arange(number, number + len(images))).of(images)
                    number, age = number + len(images), age + 1
                    gradient = self._gradient(model, images, labels, pixels, random, epoch, tally)
                    pixels = (pixels + adam_step(gradient, first, second, age, self.learning_rate)).clamp(0, 1)
                told = tally.close()
                success = told.success
                if progress is not None:
                    progress(told)
        tally.warn()
        return TrainedPatch(pixels=cast("Tensor", pixels), scale=self.scale, success=success)

    def _start(self, images: Tensor, seed: int) -> Tensor:
        window = window_of("UniversalPatch", images, self.size)
        random = ImageRandom(seed, torch.zeros(1, dtype=torch.int64, device=images.device))
        return random.uniform("universal-patch/start", (images.shape[1], window.height, window.width))[0]

    def _gradient(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        pixels: Tensor,
        random: ImageRandom,
        epoch: int,
        tally: Tally,
    ) -> Tensor:
        """The gradient of the mean loss with respect to the patch."""
        total = torch.zeros_like(pixels)
        for draw in range(self.draws):
            start = 3 * (epoch * self.draws + draw)
            numbers = random.uniform("universal-patch/fit", (3,), start=start, dtype=torch.float64)
            leaf = pixels.detach().clone().requires_grad_()
            pasted = _paste(images, leaf.to(images.dtype), self.scale, numbers)
            objective = Objective(model, self.loss, pasted.detach())
            gradients, logits = objective.gradient(pasted, labels)
            gradients = torch.where(objective.broken[:, None, None, None], 0, gradients)  # they would rule the sum
            step = torch.autograd.grad(pasted, leaf, gradients)[0]
            tally.add(self.loss(logits, labels), succeeded(self.loss, logits, labels), objective.broken, step)
            total += step
        return total / (len(images) * self.draws)


def _check_fit(pixels: Tensor, scale: tuple[float, float], images: Tensor) -> None:
    channels, height, width = pixels.shape
    if images.shape[1] != channels:
        raise ValueError(f"the patch has {channels} channels, the images have {images.shape[1]}")
    largest = round(height * scale[1]), round(width * scale[1])
    if largest[0] > images.shape[2] or largest[1] > images.shape[3]:
        raise ValueError(
            f"a patch of {height} x {width} pixels, enlarged by up to {scale[1]:g} to {largest[0]} x {largest[1]}, "
            f"does not fit into images of {images.shape[2]} x {images.shape[3]}: choose a smaller size or scale"
        )


def _paste(images: Tensor, pixels: Tensor, scale: tuple[float, float], numbers: Tensor) -> Tensor:
    """The images with the patch on them, differentiable in `pixels`; `numbers` (N, 3) in [0, 1) say where.

    The patch is resized to whole pixels by bilinear interpolation.
    """
    factor = scale[0] + (scale[1] - scale[0]) * numbers[:, :1]
    inside, coordinates = [], []
    for axis, (side, room) in enumerate(zip(pixels.shape[1:], images.shape[2:], strict=True)):
        length = (side * factor).round().clamp(min=1, max=room)
        corner = ((room - length + 1) * numbers[:, 1 + axis, None]).floor()
        along = torch.arange(room, device=images.device) - corner
        inside.append((along >= 0) & (along < length))
        coordinates.append((2 * along + 1) / length - 1)
    shape = len(images), *images.shape[2:]
    down, right = coordinates[0][:, :, None].expand(shape), coordinates[1][:, None, :].expand(shape)
    grid = torch.stack((right, down), dim=3).to(images.dtype)
    spread = pixels[None].expand(len(images), -1, -1, -1)
    patch = functional.grid_sample(spread, grid, mode="bilinear", padding_mode="border", align_corners=False)
    patch = patch + (patch.clamp(0, 1) - patch).detach()  # rounding; clamp alone would take gradients at 0 and 1
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], patch, images)
