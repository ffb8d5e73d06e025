"""What one corruption consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_bench.corruptions.draws import Draws

Key = Callable[[str], Tensor]
"""Gives one 64-bit key per image, int64 (N,), for a purpose such as "normal"; see `fields` for what grows of it."""

Shape = tuple[int, int, int]

LARGE = 32
"""Fewest pixels a side for the corruptions that look at a neighbourhood."""


def draw_nothing(_key: Key, _shape: Shape, _constant: Any) -> dict[str, Tensor]:
    """Sample for a corruption without randomness."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A named operation on images; its constants per severity lie in the presets.

    The functions take whole batches of contiguous images on any device, with 1 or 3 channels: one channel gives what
    the first of three equal channels would become. They change nothing that they are given, and on a GPU they do not
    wait for it.

    Args:
        name: as published, e.g. "gaussian_noise".
        group: "noise", "blur", "weather" or "digital".
        apply: (images (N, C, H, W) in [0, 1] of float32 or float64, constant, draws) -> images of that type in new
            memory, not yet clipped.
        apply_levels: (uint8 images, constant, draws) -> uint8 images, for operations that are defined on grey levels;
            None where `apply` does both.
        sample: (key, (C, H, W), constant) -> random fields with the image as first axis, on the device of the keys.
        smallest: fewest pixels a side that the operation takes.
        one_by_one: the operation itself goes through the images one by one: a batch need not be cut to fit a cache.
        extra: not among the fifteen that count in the mean corruption error.
    """

    name: str
    group: str
    apply: Callable[[Tensor, Any, Draws], Tensor]
    apply_levels: Callable[[Tensor, Any, Draws], Tensor] | None = None
    sample: Callable[[Key, Shape, Any], dict[str, Tensor]] = draw_nothing
    smallest: int = 1
    one_by_one: bool = False
    extra: bool = False
