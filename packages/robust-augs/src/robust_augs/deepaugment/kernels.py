"""Edits of one tensor of kernels (filters, channels, height, width); each returns a new tensor."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from robust_augs._random import integers, uniform


def uniform_like(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    """U[0, 1) for every entry of `tensor`, in its dtype and on its device."""
    return uniform(tuple(tensor.shape), generator, tensor.device).to(tensor.dtype)


def random_signs(tensor: Tensor, generator: torch.Generator | None, *, negative: float = 0.5) -> Tensor:
    """-1 with probability `negative`, else 1, for every entry of `tensor`."""
    return 1 - 2 * random_mask(tensor, generator, kept=negative)


def random_mask(tensor: Tensor, generator: torch.Generator | None, *, kept: float = 0.5) -> Tensor:
    """1 with probability `kept`, else 0, for every entry of `tensor`."""
    return (uniform_like(tensor, generator) < kept).to(tensor.dtype)


def random_scale(tensor: Tensor, generator: torch.Generator | None, *, low: float, high: float) -> Tensor:
    """Multiply every entry by 1 + 2 u U(low, high), with one u ~ U(0, 1) for the whole tensor."""
    spread = float(uniform((1,), generator, "cpu"))
    return tensor * (1 + 2 * spread * (low + (high - low) * uniform_like(tensor, generator)))


def shift(kernels: Tensor, places: Tensor, signs: Tensor) -> Tensor:
    """Correlate the kernels of each channel with a delta at one of the 3x3 `places` (channels,) and of a sign."""
    deltas = F.one_hot(places, 9).to(kernels) * signs.to(kernels).unsqueeze(1)
    return F.conv2d(kernels, deltas.view(-1, 1, 3, 3), padding=1, groups=kernels.shape[1])


def random_shift(kernels: Tensor, generator: torch.Generator | None) -> Tensor:
    """Move the kernels of each channel by up to a pixel each way, and negate half of the channels."""
    channels = kernels.shape[1]
    places = integers((channels,), 0, 8, generator, kernels.device)
    return shift(kernels, places, 2 * integers((channels,), 0, 1, generator, kernels.device) - 1)


def rotate(kernels: Tensor, quarters: int, *, channels: bool = False) -> Tensor:
    """Turn every kernel by `quarters` of a circle, or with `channels` the plane of filters and channels.

    What is not square turns by a half, the one turn that keeps its shape.
    """
    axes = (0, 1) if channels else (2, 3)
    fits = kernels.shape[axes[0]] == kernels.shape[axes[1]]
    return torch.rot90(kernels, quarters if fits else 2, axes)


def keep_largest(kernels: Tensor) -> Tensor:
    """Set to zero all entries of each kernel but its largest."""
    flat = kernels.flatten(2)
    largest = flat.max(dim=2, keepdim=True)
    return torch.zeros_like(flat).scatter(2, largest.indices, largest.values).view_as(kernels)
