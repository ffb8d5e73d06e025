"""Images whose files are corrupted already."""

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A corruption that the files have, as those of ImageNet-C and CIFAR-10-C: nothing is done to the images here.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261.

    Args:
        corruption: its name, e.g. "fog".
        severity: 1..5.

    Raises:
        ValueError: if the severity is another number.
    """

    corruption: str
    severity: int
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.severity not in (1, 2, 3, 4, 5):
            raise ValueError(f"severity must be one of 1, 2, 3, 4, 5, got {self.severity}")

    @property
    def label(self) -> str:
        """Name the corruption with its severity."""
        return f"{self.corruption} {self.severity}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give both, and that they come from files."""
        return {"kind": "corruption", "corruption": self.corruption, "severity": self.severity, "source": "files"}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same images."""
        return images
