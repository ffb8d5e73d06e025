"""What one corruption consists of."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from robust_bench.corruptions.draws import Draws

Key = Callable[[str], Tensor]
"""Gives one 64-bit key per image, int64 (N,), for a named purpose such as "normal"."""

Shape = tuple[int, int, int]


def draw_nothing(_key: Key, _shape: Shape, _constant: float) -> dict[str, Tensor]:
    """Sample for a corruption without randomness."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A named operation on images; its constant per severity lies in the presets.

    Args:
        name: as published, e.g. "gaussian_noise".
        group: "noise", "blur", "weather" or "digital".
        apply: (float images (N, C, H, W) in [0, 1], constant, draws) -> images, not yet clipped.
        apply_levels: (uint8 images, constant) -> uint8 images, for operations that are defined on grey levels; None
            where `apply` does both.
        sample: (key, (C, H, W), constant) -> random fields with the image as first axis.
    """

    name: str
    group: str
    apply: Callable[[Tensor, float, Draws], Tensor]
    apply_levels: Callable[[Tensor, float], Tensor] | None = None
    sample: Callable[[Key, Shape, float], dict[str, Tensor]] = draw_nothing
