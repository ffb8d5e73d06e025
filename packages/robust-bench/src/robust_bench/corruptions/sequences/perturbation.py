"""What one kind of sequence consists of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_bench.corruptions.corruption import Key, Shape, draw_nothing
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.sequences.presets import Steps

Draw = Callable[[int], Draws]
"""Gives the random numbers of a frame, by its number from 0."""

Window = tuple[int, int, int, int]
"""What is kept of a frame: its first row and column, its height and its width."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """A named way from an image to frames that change little from one to the next.

    Args:
        name: as published, e.g. "tilt".
        make: (uint8 images (N, C, H, W), window, steps, draw) -> uint8 frames of the window's size, one after another,
            in new memory. It changes nothing that it is given, and no frame that it has given away.
        sample: (key, (C, H, W), constant) -> random fields of one frame with the image as first axis; a noise has some
            for every frame but the first, others for the first alone.
        whole: pixels outside of the window may move into it. Others are given no more than the window of the images.
        noise: every frame is the clean image with noise of its own, but for the first, which is the clean image.
    """

    name: str
    make: Callable[[Tensor, Window, Steps, Draw], Iterator[Tensor]]
    sample: Callable[[Key, Shape, Any], dict[str, Tensor]] = draw_nothing
    whole: bool = False
    noise: bool = False
