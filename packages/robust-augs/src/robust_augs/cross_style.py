"""Images with the shape of one class and the texture of another, labelled as both."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from robust_augs._images import check_images, check_share
from robust_augs.style import StyleDraws, StyleTransfer


@dataclass(frozen=True)
class CrossStyle:
    """Repaint images in the style of other images of the batch, and label them with both classes.

    Li et al., "Shape-Texture Debiased Neural Network Training", ICLR 2021, arXiv:2010.05981, equation 1: the label of
    an image with the shape of one and the texture of another is gamma * label(shape) + (1 - gamma) * label(texture).
    The published training adds the cross-entropy on these images, computed with batch norms of their own, to that on
    the clean images; its style transfer has alpha 0.5. Cross-entropy is linear in the label, so the mixed label gives
    gamma * CE(shape) + (1 - gamma) * CE(texture).

    Differs from the published code: labels are probabilities, so that clean images need no second label of weight 0
    (there class 0), and images keep their size, where the published training made the repainted ones smaller to save
    time (down to 112 pixels).

    Args:
        transfer: the style transfer, without a bank of styles; published with `alpha=0.5`.
        gamma: the weight of the shape's label; the texture's is 1 - gamma.
        num_classes: K, needed where labels are class indices.

    Raises:
        ValueError: if `gamma` is outside [0, 1], or `transfer` has a bank, whose paintings have no labels.

    Examples:
        >>> transfer = StyleTransfer(torch.nn.Identity(), torch.nn.Identity(), alpha=0.5)
        >>> images, labels = CrossStyle(transfer, num_classes=10)(torch.rand(8, 3, 32, 32), torch.arange(8))
        >>> labels.shape
        torch.Size([8, 10])
    """

    transfer: StyleTransfer
    _: KW_ONLY
    gamma: float = 0.8
    num_classes: int | None = None

    def __post_init__(self) -> None:
        check_share("gamma", self.gamma)
        if self.transfer.styles is not None:
            raise ValueError(
                "the styles must come from the batch, whose labels are known: leave out styles=... of StyleTransfer"
            )

    def __call__(
        self, images: Tensor, labels: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Repaint `images` (N, C, H, W), floats in [0, 1] or uint8, and mix `labels`.

        Args:
            images: the batch; it is not changed, and no gradient flows.
            labels: class indices (N,) or probabilities (N, K).
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Returns:
            Images like the given ones, and probabilities (N, K).

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` or `labels` are not of that form, or `num_classes` is missing or too small.
        """
        check_images(images)
        return self.apply(images, labels, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> StyleDraws:
        """Draw for a batch of `shape` (N, C, H, W): a permutation, in which an image may keep its own style."""
        return self.transfer.sample(shape, generator, device=device)

    def apply(self, images: Tensor, labels: Tensor, draws: StyleDraws) -> tuple[Tensor, Tensor]:
        """Repaint `images` and mix `labels` as drawn; a pure function of its arguments."""
        probabilities = self._probabilities(labels, len(images))
        mixed = self.gamma * probabilities + (1 - self.gamma) * probabilities[draws.style]
        return self.transfer.apply(images, draws), mixed

    def label_pair(self, labels: Tensor, draws: StyleDraws) -> tuple[Tensor, Tensor, Tensor]:
        """The labels of shape and of style, as given, and the weight of the style's, 1 - gamma, as floats (N,).

        For losses that take no probabilities: (1 - weight) * loss(logits, shape) + weight * loss(logits, style).
        """
        return labels, labels[draws.style], torch.full((len(labels),), 1 - self.gamma, device=labels.device)

    def _probabilities(self, labels: Tensor, count: int) -> Tensor:
        if len(labels) != count or labels.ndim not in (1, 2) or labels.is_floating_point() != (labels.ndim == 2):
            raise ValueError(
                f"labels must be class indices ({count},) or probabilities ({count}, classes) for {count} images, got "
                f"{labels.dtype} {tuple(labels.shape)}"
            )
        if labels.ndim == 2:
            return labels
        if self.num_classes is None:
            raise ValueError("labels are class indices: say how many classes there are, CrossStyle(num_classes=...)")
        if labels.device.type == "cpu" and count:  # elsewhere the host would have to wait for the device
            low, high = (int(label) for label in labels.aminmax())
            if not 0 <= low <= high < self.num_classes:
                raise ValueError(f"labels must lie in 0..{self.num_classes - 1}, got {low}..{high}")
        return torch.nn.functional.one_hot(labels.long(), self.num_classes).float()
