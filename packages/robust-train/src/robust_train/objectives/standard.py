"""Training on the images as they are."""

from dataclasses import dataclass

from robust_attacks import ImageRandom
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Standard:
    """The mean cross-entropy of the images.

    Args:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Examples:
        >>> import torch
        >>> loss, metrics = Standard()(nn.Flatten(), torch.zeros(4, 1, 1, 2), torch.tensor([0, 1, 0, 1]))
        >>> round(loss.item(), 4), metrics["accuracy"].item()
        (0.6931, 2)
    """

    label_smoothing: float = 0.0

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, random: ImageRandom | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Both halves after one another: the loss (scalar) and the metrics."""
        return self.loss(model, images, self.perturb(model, images, labels, random), labels)

    def perturb(
        self,
        model: nn.Module,  # noqa: ARG002 - the protocol of objectives
        images: Tensor,
        labels: Tensor,  # noqa: ARG002
        random: ImageRandom | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return `images` (N, C, H, W) as they are: this objective has no attack."""
        return images

    def loss(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - the same as perturbed
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (scalar) of `perturbed` with `labels` (N,), and detached sums over the images: loss, accuracy."""
        logits = model(perturbed)
        losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        metrics = {"loss": losses.detach().sum(), "accuracy": (logits.detach().argmax(1) == labels).sum()}
        return losses.mean(), metrics
