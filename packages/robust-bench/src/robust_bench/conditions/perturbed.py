"""Images perturbed little by little, of which is measured how much the answer changes from frame to frame."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model, check_logits
from robust_bench.conditions.flips import Flips
from robust_bench.corruptions.sequences import frames
from robust_bench.corruptions.sequences.table import steps_of
from robust_bench.records import Records


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """Make the frames of a perturbation sequence of every image, and compare them as ImageNet-P does.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261, section 5. One frame of a whole batch after another is made, on the model's device, shown to the
    model and forgotten; its logits are kept. Prediction, confidence and whether it is right are those of the first
    frame.

    The images are all of one size, such as 32 x 32 with the preset "cifar". With "imagenet" they are what is moved and
    turned, and the model sees their centre of 224 x 224; for whole images, which differ in size, there are
    `robust_bench.datasets.Sequences` with `Flips`.

    Args:
        perturbation: one of `robust_bench.corruptions.sequences.SEQUENCES` or `VALIDATION_SEQUENCES`.
        preset: whose constants: "imagenet" or "cifar".
        difficulty: 1, 2 or 3: how strong a noise is, how far apart frames of other sequences are compared.
        seed: of the frames' random numbers, whatever that of the evaluation is: a set of sequences is the same for all.

    Raises:
        ValueError: if one of them is not among those; when images are looked at, if they are too small.
    """

    perturbation: str
    preset: str = "imagenet"
    difficulty: int = 1
    seed: int = 0
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        steps_of(self.perturbation, self.preset, self.difficulty)

    @property
    def label(self) -> str:
        """Name the perturbation, with the difficulty where it is not 1."""
        return self._flips.label

    @property
    def settings(self) -> dict[str, Any]:
        """Give the arguments, that the frames were made here, and what the published ones are."""
        return self._flips.settings

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the images."""
        return images

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Records:
        """Compare the frames of images (N, C, H, W), which are rounded to 8 bits first.

        Raises:
            ValueError: if the images are too small, the model returns no logits (N, K), or fewer than 5.
        """
        levels = images.mul(255.0).round_().to(torch.uint8)
        logits = []
        with torch.no_grad():
            for frame in frames(levels, self.perturbation, self.preset, self.difficulty, self.seed, random.ids):
                shown = frame.to(images.dtype).div_(255.0)
                logits.append(check_logits(model(shown), shown, labels).float())
        return self._flips.records(torch.stack(logits, dim=1), labels)

    @property
    def _flips(self) -> Flips:
        return Flips.of_generated(self.perturbation, self.preset, self.difficulty, self.seed)
