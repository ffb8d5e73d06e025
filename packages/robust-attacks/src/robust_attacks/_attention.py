"""Models that show their attention: checking it, and differentiating it on the way through a forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from robust_attacks._patches import Patches

AttentionModel = Callable[[Tensor], Tensor | tuple[Tensor, Sequence[Tensor]]]
"""Images (N, C, H, W) in [0, 1] to logits (N, K), or to logits and attention maps: one (N, heads, T, T) per block."""


class Attentive:
    """A model that may show its attention, called as one that does not.

    Args:
        attack: the name for messages.
        model: images to logits, or to a pair of logits and attention maps.
        patches: the grid of the images; a map has one token for each, after the prefix.
        prefix: how many tokens come before those of the patches, as the class token.
    """

    def __init__(self, attack: str, model: AttentionModel, patches: Patches, prefix: int) -> None:
        self._attack, self._model, self._patches, self._prefix = attack, model, patches, prefix
        self.maps: Sequence[Tensor] = ()
        """The attention maps of the last pass without gradients; empty if the model shows none."""
        self.watched: Tensor | None = None
        """The patch of every image of the next passes whose attention is differentiated, int64 (n,)."""
        self.gradients: list[Tensor] = []
        """Of the last pass with gradients: for every block of the first half but the first, the gradient of the
        attention that the watched patches receive, as `log_attention`, with respect to the images."""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of the images.

        Raises:
            TypeError: if the attention maps are no tensors.
            ValueError: if their shape is wrong, or they cannot be differentiated.
        """
        output: Any = self._model(images)
        pair = isinstance(output, tuple | list) and len(output) == 2 and isinstance(output[1], tuple | list)
        logits, maps = output if pair else (output, ())
        self._check(maps, images)
        self.gradients = []
        if not images.requires_grad:
            self.maps = maps
        elif self.watched is not None:
            for index in range(1, len(maps) // 2):
                total = log_attention(maps[index], self.watched + self._prefix).sum()
                gradient = (
                    torch.autograd.grad(total, images, retain_graph=True, allow_unused=True)[0]
                    if total.requires_grad
                    else None
                )
                if gradient is None:
                    raise ValueError(
                        f"{self._attack}: the attention of block {index} does not depend on the images in a "
                        "differentiable way: return the maps without detach(), from a path that computes them "
                        "(fused attention does not)"
                    )
                self.gradients.append(gradient.nan_to_num(nan=0.0))  # a new tensor: autograd may hand out expanded ones
        return logits  # type: ignore[no-any-return]  # checked by Objective

    def scores(self, layer: int) -> Tensor:
        """The attention that every patch receives in a block of the last pass without gradients, (N, count).

        The mean over heads and queries, the prefix among the queries. The maps are forgotten.

        Raises:
            ValueError: if the model showed no attention, or has no such block.
        """
        if not self.maps:
            raise ValueError(
                f'{self._attack}: choice="attention" needs attention maps, but the model returned logits alone: let it '
                'return (logits, [maps (N, heads, T, T), one per block]), or use choice="saliency" or "random"'
            )
        if layer >= len(self.maps):
            raise ValueError(
                f"{self._attack}: layer {layer} was asked for, but the model returned the maps of {len(self.maps)} "
                f"blocks: layer counts from 0, so choose 0..{len(self.maps) - 1}"
            )
        scores = self.maps[layer].double().mean(dim=(1, 2))[:, self._prefix :]
        self.maps = ()  # they are large
        return scores

    def _check(self, maps: Sequence[Any], images: Tensor) -> None:
        tokens = self._prefix + self._patches.count
        for index, attention in enumerate(maps):
            if not isinstance(attention, Tensor) or not attention.is_floating_point():
                raise TypeError(
                    f"{self._attack}: the model must return logits and a list of attention maps, but the map of block "
                    f"{index} is a {type(attention).__name__}"
                )
            shape = tuple(attention.shape)
            if len(shape) != 4 or (shape[0], *shape[2:]) != (len(images), tokens, tokens):
                raise ValueError(
                    f"{self._attack}: the attention map of block {index} must have shape (N, heads, T, T) = "
                    f"({len(images)}, heads, {tokens}, {tokens}), for {self._prefix} prefix tokens and "
                    f"{self._patches.rows} x {self._patches.columns} patches of {self._patches.size} pixels, got "
                    f"{shape}: set prefix_tokens and patch_size as the model has them"
                )


def log_attention(attention: Tensor, tokens: Tensor) -> Tensor:
    """How strongly a token is looked at: the mean over queries of log(mean over heads of A[q, token]), (N,).

    Args:
        attention: post-softmax (N, heads, T, T), queries before keys.
        tokens: int64 (N,).
    """
    heads, queries = attention.shape[1:3]
    received = attention.gather(3, tokens[:, None, None, None].expand(-1, heads, queries, 1))[..., 0].mean(dim=1)
    if received.dtype in (torch.float16, torch.bfloat16):
        received = received.float()
    return received.clamp(min=torch.finfo(received.dtype).tiny).log().mean(dim=1)


def without_conflict(gradient: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The sum of other gradients, each without what it has against the first, image by image.

    Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient surgery for multi-task learning" (PCGrad), NeurIPS 2020,
    arXiv:2001.06782: h - (<h, g> / ||g||^2) g where <h, g> < 0, else h. Where g is zero, h stays.

    Args:
        gradient: g, (N, ...).
        others: several h, each (N, ...).
    """
    flat = gradient.flatten(1).double()
    square = flat.square().sum(dim=1, keepdim=True).clamp(min=1e-300)
    total = torch.zeros_like(flat)
    for other in others:
        vector = other.flatten(1).double()
        along = (vector * flat).sum(dim=1, keepdim=True)
        total += vector - along.clamp(max=0) / square * flat
    return total.to(gradient.dtype).reshape(gradient.shape)
