"""Universal perturbations: one change for a whole set of images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_attacks._batches import Batches, source, stream
from robust_attacks._checks import Model, check_images, check_labels, check_logits, check_result
from robust_attacks._fit import Epoch as Epoch
from robust_attacks._fit import Tally
from robust_attacks._gradient import Objective
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number, check_step_size
from robust_attacks.losses import Loss, cross_entropy, predicted, succeeded
from robust_attacks.pyramid import same_noise
from robust_attacks.random import ImageRandom
from robust_attacks.threats import L2, Linf


@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalPerturbation:
    """A change of any image, and an attack that makes it; made by `Universal.fit`.

    Args:
        delta: (C, H, W), inside the ball of the threat.
        threat: that ball, `Linf` or `L2` with one eps.
        fooling_rate: share of the images it was fitted to whose predicted class it changes (right before or not:
            Moosavi-Dezfooli et al., CVPR 2017, equation 1).
    """

    delta: Tensor
    threat: Linf | L2
    fooling_rate: float

    def apply(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) plus the perturbation, clipped to [0, 1]: new images inside the threat.

        Raises:
            TypeError: if the images are of a wrong type.
            ValueError: if their shape or values are wrong.
        """
        check_images(images)
        if images.shape[1:] != self.delta.shape:
            raise ValueError(
                f"this perturbation was made for images of shape {tuple(self.delta.shape)}, "
                f"got {tuple(images.shape[1:])}: fit one to images of that size"
            )
        images = images.detach()
        moved = images.double() + self.delta.to(images.device, torch.float64)
        return check_result(self.threat, images, self.threat.project(images, moved.clamp_(0, 1)))

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:  # noqa: ARG002
        """`apply`, in the form of every attack; model, labels and random numbers play no part."""
        check_images(images)
        check_labels(labels, images)
        return self.apply(images)

    def fooling_rate_on(self, model: Model, batches: Batches, *, device: torch.device | str | None = None) -> float:
        """The share of other images whose predicted class it changes; two forward passes per image.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            batches: of images and labels; the labels play no part.
            device: where to move the batches; None leaves them where they are.

        Raises:
            ValueError: if there are no images.
        """
        with pristine(model, torch.empty(0), 0) as model:
            return _fooling_rate(model, self, stream(batches, device))


@dataclass(frozen=True, kw_only=True)
class Universal:
    """One perturbation for a set of images, by steps along the gradient of each batch in turn.

    Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein, "Universal adversarial training", AAAI 2020, arXiv:1811.11304,
    algorithm 1 with clipped losses; the problem is that of Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal
    adversarial perturbations", CVPR 2017, arXiv:1610.08401. A step goes along the threat's steepest direction for the
    summed gradient of a batch (the sign for Linf, the normalised gradient for L2); then the perturbation alone is
    projected to the ball, and every image plus it is clipped to [0, 1]. Clipping the losses keeps images that are won
    already from ruling the sum. To fool a model rather than to break it, give the classes that it predicts as labels.

    Unlike an attack on single images, the result depends on the batches and their order. It is a function of the seed,
    the model, the settings and the batches: give the same ones in the same order, or a Dataset, which is shuffled here.

    Fitting costs an image `epochs` forward and backward passes, and two forward passes for the fooling rate.

    Args:
        threat: `Linf` or `L2` with one eps for all images.
        epochs: how often every image is used, >= 1.
        step_size: length of a step in the threat's norm, in pixel units; None means `eps / 10`.
        ceiling: losses are clipped to this from above, which takes their gradients; None clips nothing.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,); `targeted(...)` with targets as labels.

    Raises:
        TypeError: if a setting is of a wrong type.
        ValueError: if a setting is out of range.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> images, labels = torch.full((4, 1, 1, 2), 0.5), torch.zeros(4, dtype=torch.int64)
        >>> perturbation = Universal(threat=Linf(eps=0.2)).fit(model, [(images, labels)])
        >>> perturbation.delta
        tensor([[[-0.2000, -0.2000]]])
        >>> perturbation(model, images, labels)[0]
        tensor([[[0.3000, 0.3000]]])
        >>> perturbation.fooling_rate
        1.0
    """

    threat: Linf | L2
    epochs: int = 10
    step_size: float | None = None
    ceiling: float | None = 9.0
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        threat: Any = self.threat
        if not isinstance(threat, Linf | L2):
            raise TypeError(
                f"Universal: threat must be Linf or L2, as Universal(threat=Linf(eps=8/255)), got {threat!r}"
            )
        check_number("Universal", "the eps of the threat", threat.eps)
        check_count("Universal", "epochs", self.epochs)
        check_step_size("Universal", self.step_size, default="eps / 10")
        if self.ceiling is not None:
            check_number("Universal", "ceiling", self.ceiling, open_below=True)
        check_loss("Universal", self.loss)

    def fit(
        self,
        model: Model,
        batches: "Batches | Dataset[Any]",
        *,
        seed: int = 0,
        batch_size: int = 128,
        device: torch.device | str | None = None,
        progress: Callable[[Epoch], None] | None = None,
    ) -> UniversalPerturbation:
        """Find the perturbation; nothing that is given changes, and torch's random states are as before.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K), in the mode in which it is.
            batches: batches of images (N, C, H, W) in [0, 1] and labels (N,), gone through once per epoch in their own
                order (a shuffling DataLoader draws it from the seed); or a map-style Dataset of single images and
                labels, which is shuffled by the seed in every epoch.
            seed: of the order of a Dataset, and of all that torch draws meanwhile.
            batch_size: for a Dataset.
            device: where to move the batches; None leaves them where they are.
            progress: called with an `Epoch` after every epoch.

        Raises:
            TypeError: if batches, images, labels or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, there are none, or they can be gone through only once.

        Warns:
            RuntimeWarning: if logits or gradients were not finite, or there was no gradient to follow.
        """
        epochs = source(batches, seed, batch_size)
        delta: Tensor | None = None
        tally = Tally(self.epochs)
        with same_noise(seed), pristine(model, torch.empty(0), seed) as model:
            for epoch in range(self.epochs):
                for images, labels in stream(epochs(epoch), device):
                    if delta is None:
                        delta = images.new_zeros(images.shape[1:], dtype=torch.float64)
                    gradient, logits, broken = self._gradient(model, images, labels, delta)
                    direction = self.threat.direction(gradient[None].double(), images)[0]
                    delta = self._inside(delta + self._length() * direction)
                    tally.add(self.loss(logits, labels), succeeded(self.loss, logits, labels), broken, direction)
                told = tally.close()
                if progress is not None:
                    progress(told)
            found = UniversalPerturbation(
                delta=self._rounded(cast("Tensor", delta)), threat=self.threat, fooling_rate=0.0
            )
            rate = _fooling_rate(model, found, stream(epochs(self.epochs), device))
        tally.warn()
        return replace(found, fooling_rate=rate)

    @property
    def _eps(self) -> float:
        return float(cast("float", self.threat.eps))

    def _length(self) -> float:
        return self._eps / 10 if self.step_size is None else self.step_size

    def _gradient(self, model: Model, images: Tensor, labels: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient (C, H, W) of the batch's summed, clipped losses; logits; and which images took no part."""
        if images.shape[1:] != delta.shape:
            raise ValueError(
                f"all images must have the same shape, got {tuple(images.shape[1:])} after {tuple(delta.shape)}: "
                "crop or resize them"
            )

        def clipped(logits: Tensor, labels: Tensor) -> Tensor:
            losses = self.loss(logits, labels)
            return losses if self.ceiling is None else losses.clamp(max=self.ceiling)

        objective = Objective(model, clipped, images)
        summed = (images.double() + delta).to(images.dtype)
        gradients, logits = objective.gradient(summed.clamp(0, 1), labels)
        # What the clip lets through, of images that are not broken: else one of them would rule the sum.
        counted = (summed >= 0) & (summed <= 1) & ~objective.broken[:, None, None, None]
        return torch.where(counted, gradients, 0).sum(dim=0), logits, objective.broken

    def _inside(self, delta: Tensor) -> Tensor:
        """The nearest change in the ball; the box is for images to say."""
        if isinstance(self.threat, Linf):
            return delta.clamp(-self._eps, self._eps)
        length: Tensor = torch.linalg.vector_norm(delta)
        return delta * (self._eps / length.clamp(min=1e-300)).clamp(max=1)

    def _rounded(self, delta: Tensor) -> Tensor:
        """In float32, where rounding must not leave the ball of Linf."""
        rounded = delta.float()
        beyond = rounded.double().abs() > self._eps
        return torch.where(beyond, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)


@torch.no_grad()
def _fooling_rate(model: Model, perturbation: UniversalPerturbation, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of images whose predicted class changes; images with logits that are not finite count as not fooled."""
    fooled, count = 0.0, 0
    for images, _ in batches:
        before, after = model(images.clone()), model(perturbation.apply(images))
        check_logits(before, images)
        check_logits(after, images)
        finite = (before.isfinite() & after.isfinite()).all(dim=1)
        fooled += float(((predicted(before) != predicted(after)) & finite).sum())
        count += len(images)
    if not count:
        raise ValueError("there are no images to measure the fooling rate on: the batches are empty")
    return fooled / count
