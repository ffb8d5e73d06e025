"""A compiled or captured model that sees batches of few sizes only."""

from collections.abc import Callable

import torch
from torch import Tensor

from robust_attacks._checks import Model

Accelerate = Callable[[Model], Model]
"""Makes a faster model of a model, as `torch.compile` does."""


class FewSizes:
    """A model that is only ever called with `batch_size` images, a half, a quarter, ... of it.

    What compiles a model, or captures it as a CUDA graph, does so once per shape. A batch between two sizes is filled
    up with copies of its first image. Logits are copies too, since a CUDA graph writes over those of the call before.

    Args:
        model: images (N, C, H, W) to logits (N, K).
        batch_size: the largest batch.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W), n <= `batch_size`, to logits (n, K)."""
        count, size = len(images), self._batch_size
        while count <= size // 2:
            size //= 2
        if count < size:
            images = torch.cat((images, images[:1].expand(size - count, -1, -1, -1)))
        return self._model(images)[:count].clone()
