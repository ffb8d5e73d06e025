"""The images as they are."""

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The images as they are."""

    label: ClassVar[str] = "clean"
    only_right: ClassVar[bool] = False

    @property
    def settings(self) -> dict[str, Any]:
        """Give the kind."""
        return {"kind": "clean"}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same images."""
        return images
