"""The network of RSPC that looks for the patches of an image whose loss hurts most."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.nn.utils import skip_init

from robust_train.errors import SetupError


class LossWeights:
    """What the losses of a forward pass weigh in what is differentiated: loss scale over batch size, as a rule.

    The limit on gradients of a mask is one for those of the mean loss. What arrives at the mask is scaled, and the
    scale is known only in the backward pass.

    Args:
        count: is told how many losses are differentiated when they are.
    """

    def __init__(self, count: Callable[[int], None] | None = None) -> None:
        self._count = count
        self._weights: Tensor | None = None

    def watch(self, losses: Tensor) -> None:
        """Note the gradient of these losses (N,) when it is known."""
        if losses.requires_grad:
            losses.register_hook(self._note)  # type: ignore[no-untyped-call]

    def limited(self, gradient: Tensor) -> Tensor:
        """From what arrives at a mask (N, n) the gradient of the sum of the losses, with its limit.

        The limit is 1 for the gradient of the mean loss of these N images, thus N for that of their sum.
        """
        if self._weights is not None:
            weights = self._weights[:, None].to(gradient)
            gradient = gradient / torch.where(weights == 0, 1, weights)
        return gradient.clamp(-len(gradient), len(gradient))

    def _note(self, gradient: Tensor) -> None:
        self._weights = gradient
        if self._count is not None:
            self._count(len(gradient))


class MaskNetwork(nn.Module):
    """Choose which patches of an image are hidden: a convolution over the patches, GELU, and a linear layer over all.

    Guo, Stutz, Schiele, "Improving Robustness of Vision Transformers by Reducing Sensitivity to Patch Corruptions",
    CVPR 2023, section 3.2: patches are kept whose score is above a quantile of the image's scores. In the backward pass
    the gradient of a patch's mask goes to its score, limited to [-1, 1].

    Args:
        shape: (channels, height, width) of an image.
        patch: side of a patch in pixels; it divides both sides.
        share: rho, of the quantile, in [0, 1): of n patches, floor(rho (n - 1)) + 1 are hidden, also where scores are
            equal (then the first ones): 20 of 196 for 0.1.

    Raises:
        SetupError: if the patches do not fit.
    """

    def __init__(self, shape: tuple[int, int, int], *, patch: int = 16, share: float = 0.1) -> None:
        super().__init__()
        channels, height, width = shape
        if patch < 1 or height % patch or width % patch:
            raise SetupError(f"patches of {patch} pixels must divide both sides of the images, got {height} x {width}")
        self.patch = patch
        self.grid = (height // patch, width // patch)
        count = self.grid[0] * self.grid[1]
        self.hidden = math.floor(share * (count - 1)) + 1
        # skip_init: torch's own start would draw from the default generator.
        self.patches = skip_init(nn.Conv2d, channels, 1, patch, stride=patch, bias=False)  # type: ignore[no-untyped-call]
        self.scores = skip_init(nn.Linear, count, count, bias=False)  # type: ignore[no-untyped-call]
        self.reset_parameters(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights as torch does: uniform up to the inverse root of a layer's number of inputs."""
        for weight in self.parameters():
            limit = weight[0].numel() ** -0.5
            weight.uniform_(-limit, limit, generator=generator)

    def forward(self, images: Tensor, weights: LossWeights | None = None) -> Tensor:
        """Masks (N, 1, H, W) of images (N, C, H, W): 1 where a pixel is kept, 0 where it is hidden.

        Without `weights`, gradients are taken for those of a sum of losses.
        """
        scores = self.scores(functional.gelu(self.patches(images)).flatten(1))
        kept: Tensor = _Kept.apply(scores, self.hidden, weights or LossWeights())
        coarse = kept.view(-1, 1, *self.grid)
        return coarse.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)


class _Kept(torch.autograd.Function):
    """1 for all scores (N, n) of an image but the lowest; the gradient passes straight through, limited."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, hidden: int, weights: LossWeights) -> Tensor:
        ctx.weights = weights
        lowest = scores.argsort(dim=1, stable=True)[:, :hidden]
        return torch.ones_like(scores).scatter(1, lowest, 0.0)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Any) -> Any:
        return ctx.weights.limited(gradients[0]), None, None  # type: ignore[attr-defined]
