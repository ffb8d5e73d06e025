"""Images under a corruption."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.corruptions import CORRUPTIONS, PRESETS, VARIANTS, corrupt


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Images with one of the common corruptions, as 8-bit files hold them.

    The images are rounded to 8 bits, corrupted and truncated to 8 bits as the published sets were.

    Args:
        corruption: one of `robust_bench.corruptions.CORRUPTIONS`.
        severity: 1..5.
        preset: whose constants: "imagenet", "tiny_imagenet" or "cifar".
        variant: "imagenet_c" or "imagecorruptions".

    Raises:
        ValueError: if one of them is not among those.
    """

    corruption: str
    severity: int = 3
    preset: str = "imagenet"
    variant: str = "imagenet_c"
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("corruption", self.corruption, CORRUPTIONS),
            ("severity", self.severity, (1, 2, 3, 4, 5)),
            ("preset", self.preset, tuple(PRESETS)),
            ("variant", self.variant, VARIANTS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}: choose from {', '.join(map(str, choices))}")

    @property
    def label(self) -> str:
        """Name the corruption with its severity."""
        return f"{self.corruption} {self.severity}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give all four arguments, and that nothing was stored as JPEG."""
        return {"kind": "corruption", **dataclasses.asdict(self), "source": "generated", "jpeg85": False}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Round to 8 bits, corrupt, and go back to floats in [0, 1]."""
        levels = images.mul(255.0).round_().to(torch.uint8)
        corrupted = corrupt(
            levels, self.corruption, self.severity, self.preset, self.variant, seed=random.seed, ids=random.ids
        )
        return corrupted.to(images.dtype).div_(255.0)
