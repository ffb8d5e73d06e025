"""Draws of some of the images, and work on a few images at a time."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Draws = TypeVar("Draws", bound=Any)
BUDGET = 2**22  # numbers, 16 MB of float32: temporaries of that size stay near the core and keep their memory
DEVICE_BUDGET = 2**27  # half a gigabyte


def select(draws: Draws, rows: Tensor | slice) -> Draws:
    """The draws of some images, where all fields of `draws` are tensors (N, ...)."""
    some: Draws = type(draws)(**{field.name: _rows(getattr(draws, field.name), rows) for field in fields(draws)})
    return some


def block_size(numbers: int, device: torch.device | str) -> int:
    """How many images to work on at a time, if each takes so many temporary `numbers`."""
    budget = BUDGET if torch.device(device).type == "cpu" else DEVICE_BUDGET
    return max(1, budget // max(numbers, 1))


def in_blocks(transform: Callable[[Tensor, Draws], Tensor], images: Tensor, draws: Draws, *, numbers: int) -> Tensor:
    """Transform a batch (N, C, H, W) a block at a time; each image must depend on itself and its draws alone.

    Args:
        transform: takes some of the images and their draws.
        images: the batch.
        draws: a dataclass of tensors (N, ...).
        numbers: how many temporary ones `transform` has at once for each image.
    """
    size = block_size(numbers, images.device)
    if len(images) <= size:
        return transform(images, draws)
    starts = range(0, len(images), size)
    return torch.cat([transform(images[i : i + size], select(draws, slice(i, i + size))) for i in starts])


def _rows(values: Tensor, rows: Tensor | slice) -> Tensor:
    return values[rows] if isinstance(rows, slice) else values.index_select(0, rows)
