"""AugMax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robust_augs._frozen import frozen
from robust_augs._images import as_float, check_images, like
from robust_augs._levels import as_levels
from robust_augs._random import uniform
from robust_augs.augmix import mix
from robust_augs.chains import ChainDraws, apply_chains, check_chains, sample_chains
from robust_augs.operations import OPERATIONS


@dataclass(frozen=True, kw_only=True)
class MaxDraws:
    """What `AugMax` draws: its chains, and where the ascent starts, m (N,) and q (N, width), each from U[0, 1)."""

    chains: ChainDraws
    share: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True)
class AugMax:
    """Mix images with chains of random operations on themselves so that a model finds the mixture hard.

    Wang et al., "AugMax: Adversarial Composition of Random Augmentations for Robust Training", NeurIPS 2021,
    arXiv:2110.13771, section 3.2. The chains are those of `AugMix`; with w = softmax(q), m in [0, 1] and q in R^width

        y = (1 - m) x + m sum_i w_i chain_i(x)

    is made to raise the cross-entropy of the model by steps along the signs of its gradients in m and q.

    The published loss is CE(clean) + lambda JS(clean, AugMax view, AugMix view), see `jensen_shannon`, with lambda 10
    on CIFAR and Tiny ImageNet (1 for ResNet-18 on CIFAR-100) and 12 on ImageNet, and batch statistics of its own for
    the AugMax view (DuBIN).

    Args:
        severity: the largest strength of an operation, in [0.1, 10].
        width: number of chains.
        depth: operations per chain; -1 draws 1, 2 or 3 for each chain.
        steps: of the ascent; each costs one forward and one backward pass.
        step_size: how far a step moves m and every q.
        friendly: an image moves no further once the model has got it wrong `tau` times, so that it stays learnable
            (Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", ICML 2020,
            arXiv:2002.11242).
        tau: how often the model may get it wrong, at least 1.
        quantize: round to 8 bits after every operation as Pillow does, and so as published.

    Attributes:
        published: the settings of the published training, on CIFAR and ImageNet: severity 3, 5 steps of 0.1, friendly.

    Raises:
        ValueError: if a setting is out of its range.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> AugMax()(model, images, labels, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 8, 8])
    """

    severity: float = 3.0
    width: int = 3
    depth: int = -1
    steps: int = 5
    step_size: float = 0.1
    friendly: bool = True
    tau: int = 1
    quantize: bool = True

    published: ClassVar["AugMax"]

    def __post_init__(self) -> None:
        check_chains(self.severity, self.width, self.depth)
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not self.step_size > 0:
            raise ValueError(f"step_size must be more than 0, got {self.step_size}")
        if self.tau < 1:
            raise ValueError(f"tau must be at least 1, got {self.tau}")

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Augment `images` against `model`; same shape, dtype and device come back, without a gradient.

        Args:
            model: images (N, C, H, W) -> logits (N, K). A module is put into eval mode meanwhile; its modes, buffers
                and gradients are afterwards as they were.
            images: (N, C, H, W), floats in [0, 1] or uint8, which the model gets as floats. They are not changed.
            labels: (N,) int64, the true classes.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8, or `labels` is not a tensor.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1], or `labels` is
                not (N,) of int64.
        """
        check_images(images)
        check_labels(images, labels)
        return self.apply(model, images, labels, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> MaxDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        share = uniform((shape[0],), generator, device)
        scores = uniform((shape[0], self.width), generator, device)
        chains = sample_chains(
            shape[0],
            width=self.width,
            depth=self.depth,
            severity=self.severity,
            operations=len(OPERATIONS),
            generator=generator,
            device=device,
        )
        return MaxDraws(chains=chains, share=share, scores=scores)

    def apply(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, draws: MaxDraws) -> Tensor:
        """Augment `images` from the start that was drawn."""
        with torch.no_grad():
            clean = as_float(images.detach())
            levels = apply_chains(as_levels(images.detach(), quantize=self.quantize), draws.chains, OPERATIONS)
        share, scores = draws.share, draws.scores
        chances = torch.full_like(labels, self.tau if self.friendly else self.steps + 1)
        with frozen(model):
            for _ in range(self.steps):
                with torch.enable_grad():
                    share, scores = share.detach().requires_grad_(), scores.detach().requires_grad_()
                    mixed = mix(clean, levels, scores.softmax(dim=1), share)
                    logits = model(mixed if images.dtype == torch.uint8 else mixed.to(images.dtype))
                    loss = cross_entropy(logits, labels, reduction="sum")  # so that images do not influence each other
                    of_share, of_scores = torch.autograd.grad(loss, (share, scores))
                with torch.no_grad():
                    chances -= (logits.argmax(dim=1) != labels).long()
                    length = self.step_size * (chances > 0)
                    share = (share + length * of_share.sign()).clamp(0, 1)
                    scores = scores + length[:, None] * of_scores.sign()
        with torch.no_grad():
            return like(images, mix(clean, levels, scores.softmax(dim=1), share))


AugMax.published = AugMax(severity=3.0, steps=5, step_size=0.1, friendly=True, tau=1)


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one class index per image."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor (N,) of int64, got {type(labels).__name__}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"labels must be the class indices of {len(images)} images, int64 of shape (N,), got {got}")
