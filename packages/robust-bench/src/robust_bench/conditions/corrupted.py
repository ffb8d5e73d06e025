"""Images under a corruption."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, PRESETS, VARIANTS, corrupt
from robust_bench.corruptions.frost_sources import name_of_textures


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Images with one of the common corruptions, as 8-bit files hold them.

    The images are rounded to 8 bits, corrupted and truncated to 8 bits as the published sets were.

    Args:
        corruption: one of `robust_bench.corruptions.CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1..5.
        preset: whose constants: "imagenet", "tiny_imagenet" or "cifar".
        variant: "imagenet_c" or "imagecorruptions".
        store_jpeg85: write and read the images as JPEG of quality 85, as most published sets were; not for the preset
            "cifar".
        frost: where the textures of frost come from; see `robust_bench.corruptions.corrupt`.

    Raises:
        ValueError: if one of them is not among those.
    """

    corruption: str
    severity: int = 3
    preset: str = "imagenet"
    variant: str = "imagenet_c"
    store_jpeg85: bool = False
    frost: str = "procedural"
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("corruption", self.corruption, CORRUPTIONS + EXTRA_CORRUPTIONS),
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
        """Give all arguments, those of frost with frost alone, and that the images were made here."""
        arguments = dataclasses.asdict(self)
        jpeg85, frost = arguments.pop("store_jpeg85"), arguments.pop("frost")
        textures = {"frost": name_of_textures(frost)} if self.corruption == "frost" else {}
        return {"kind": "corruption", **arguments, **textures, "source": "generated", "jpeg85": jpeg85}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Round to 8 bits, corrupt, and go back to floats in [0, 1]."""
        levels = images.mul(255.0).round_().to(torch.uint8)
        corrupted = corrupt(
            levels,
            self.corruption,
            self.severity,
            self.preset,
            self.variant,
            seed=random.seed,
            ids=random.ids,
            store_jpeg85=self.store_jpeg85,
            frost=self.frost,
        )
        return corrupted.to(images.dtype).div_(255.0)
