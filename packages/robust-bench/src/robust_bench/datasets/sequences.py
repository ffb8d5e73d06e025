"""Sequences of frames that are made from images."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.corruptions.sequences import sequence
from robust_bench.corruptions.sequences.table import steps_of
from robust_bench.datasets.picture import picture_of
from robust_bench.fingerprint import data_hash
from robust_bench.preprocess import AsStored


class Sequences(Dataset[tuple[Tensor, int]]):
    """A perturbation sequence of every image of a data set, as float tensors (T, C, h, w) in [0, 1] with its label.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261; see `robust_bench.corruptions.sequences.frames`. The images may
    differ in size: as in the published scripts, whole images are moved and turned, and the same centre is cut out of
    all frames. An image's id is its position in the data set.

    Args:
        data: of (image, label) pairs, float images (C, H, W) in [0, 1], which are rounded to 8 bits.
        perturbation: one of `robust_bench.corruptions.sequences.SEQUENCES` or `VALIDATION_SEQUENCES`.
        preset: whose constants: "imagenet" or "cifar".
        difficulty: how strong a noise is.
        seed: of the random numbers.
        preprocess: what is done to the frames; None means nothing.

    Raises:
        ValueError: if a name or the difficulty is unknown; when an image is taken, if it is too small.
    """

    def __init__(
        self,
        data: Dataset[Any],
        perturbation: str,
        *,
        preset: str = "imagenet",
        difficulty: int = 1,
        seed: int = 0,
        preprocess: AsStored | None = None,
    ) -> None:
        steps_of(perturbation, preset, difficulty)
        self.data = data
        self.perturbation = perturbation
        self.preset = preset
        self.difficulty = difficulty
        self.seed = seed
        self.preprocess = preprocess

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the images' fingerprint, of how frames are made, and of what is done to them."""
        made = self.perturbation, self.preset, self.difficulty, self.seed
        return hashlib.sha256(f"{data_hash(self.data)}{made}{self.preprocess}".encode()).hexdigest()

    @property
    def filename(self) -> Callable[[int], str]:
        """Name the file of an image as the data set does; there is no such attribute where that names none."""
        name: Callable[[int], str] = self.data.filename  # type: ignore[attr-defined]
        return name

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # those of images have a length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.data[index]
        levels = image.mul(255.0).round_().to(torch.uint8)[None]
        ids = torch.tensor([index])
        frames = sequence(levels, self.perturbation, self.preset, self.difficulty, self.seed, ids)[0]
        return self._preprocessed(frames).to(torch.float32).div_(255.0), label

    def _preprocessed(self, frames: Tensor) -> Tensor:
        if self.preprocess is None or self.preprocess.size in (None, self.preprocess.stored):
            return frames
        return torch.stack([self.preprocess(picture_of(frame)) for frame in frames])
