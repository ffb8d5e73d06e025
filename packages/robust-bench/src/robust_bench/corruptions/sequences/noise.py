"""Sequences whose frames are the clean image, and then the clean image with noise that is new every time."""

from collections.abc import Iterator

from torch import Tensor

from robust_bench.corruptions.corrupt import apply_to_levels
from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.noise import NOISE
from robust_bench.corruptions.sequences.perturbation import Draw, Perturbation, Window
from robust_bench.corruptions.sequences.presets import Steps


def _noisy(corruption: Corruption) -> Perturbation:
    def make(images: Tensor, _window: Window, steps: Steps, draw: Draw) -> Iterator[Tensor]:
        yield images.clone()
        for frame in range(1, len(steps.values)):
            yield apply_to_levels(corruption, images, steps.constant, draw(frame), "float32")

    return Perturbation(name=corruption.name, make=make, sample=corruption.sample, noise=True)


NOISES = tuple(_noisy(corruption) for corruption in NOISE if corruption.name != "impulse_noise")
