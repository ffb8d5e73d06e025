"""Sequences of frames, of which is measured how much the answer changes from frame to frame."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model, check_logits
from robust_bench.corruptions.sequences.table import is_noise, preset_of
from robust_bench.metrics import sequence_flips, sequence_top5_distances, sequence_zipf_distances, top5_classes
from robust_bench.records import Records

FLIPS = "flips"
"""The further column of the share of compared frames with different predictions."""

TOP5_DISTANCE = "top5_distance"
"""The further column of the mean top-5 distance between compared frames."""

ZIPF_DISTANCE = "zipf_distance"
"""The further column of the mean Zipf distance between compared frames."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """How frames were made that come out of no files.

    Args:
        preset: whose constants, "imagenet" or "cifar".
        seed: of the random numbers.

    Raises:
        ValueError: for another preset.
    """

    preset: str
    seed: int = 0

    def __post_init__(self) -> None:
        preset_of(self.preset)

    @property
    def settings(self) -> dict[str, Any]:
        """Give both, that the frames were made here, and what the published ones are."""
        return {
            "source": "generated",
            "preset": self.preset,
            "seed": self.seed,
            "published": preset_of(self.preset).published,
        }


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Look at every frame of a sequence, and compare frames as ImageNet-P does.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261, section 5. Prediction, confidence and whether it is right are those of the first frame.

    Args:
        noise: whether the perturbation is a noise: every frame is compared with the first, which is clean, and
            otherwise with the one `difficulty` before it.
        difficulty: 1 in papers; of a noise it tells which files these are.
        perturbation: its name, e.g. "tilt".
        generated: how the frames were made, where they come out of no files.

    Raises:
        ValueError: if `difficulty` is not at least 1.
    """

    noise: bool
    difficulty: int = 1
    perturbation: str = "sequence"
    generated: Generated | None = None
    only_right: ClassVar[bool] = False
    dimensions: ClassVar[int] = 5

    def __post_init__(self) -> None:
        if self.difficulty < 1:
            raise ValueError(f"difficulty must be at least 1, got {self.difficulty}; papers use 1")

    @classmethod
    def of_generated(cls, perturbation: str, preset: str, difficulty: int = 1, seed: int = 0) -> "Flips":
        """For frames that `robust_bench.corruptions.sequences` makes with these arguments.

        Raises:
            ValueError: if a name is unknown.
        """
        return cls(
            noise=is_noise(perturbation),
            difficulty=difficulty,
            perturbation=perturbation,
            generated=Generated(preset=preset, seed=seed),
        )

    @property
    def label(self) -> str:
        """Name the perturbation, with the difficulty where it is not 1."""
        return self.perturbation + (f", difficulty {self.difficulty}" if self.difficulty != 1 else "") + ", first frame"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the arguments."""
        return {
            "kind": "sequence",
            "perturbation": self.perturbation,
            "noise": self.noise,
            "difficulty": self.difficulty,
            **({} if self.generated is None else self.generated.settings),
        }

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same sequences."""
        return images

    def measure(self, model: Model, images: Tensor, labels: Tensor, _random: ImageRandom, /) -> Records:
        """Compare the frames of sequences (N, T, C, H, W), all of which the model sees at once.

        Raises:
            ValueError: if there are too few frames to compare, the model returns no logits (N, K), or fewer than 5.
        """
        with torch.no_grad():
            frames, count = images.flatten(0, 1), images.shape[1]
            found = check_logits(model(frames), frames, labels.repeat_interleave(count))
        return self.records(found.float().view(len(images), count, found.shape[1]), labels)

    def records(self, logits: Tensor, labels: Tensor) -> Records:
        """Compare the frames of sequences by what a model says of them.

        Args:
            logits: float32 (N, T, K).
            labels: (N,).

        Raises:
            ValueError: if there are too few frames to compare, or fewer than 5 classes.
        """
        top = top5_classes(logits)
        predictions = top[:, 0, 0]
        return Records(
            predictions=predictions.cpu(),
            confidences=logits[:, 0].softmax(dim=1).amax(dim=1).cpu(),
            right=(predictions == labels).cpu(),
            more={
                FLIPS: sequence_flips(top[..., 0], self.noise, self.difficulty),
                TOP5_DISTANCE: sequence_top5_distances(top, self.noise, self.difficulty),
                ZIPF_DISTANCE: sequence_zipf_distances(logits, self.noise, self.difficulty),
            },
        )
