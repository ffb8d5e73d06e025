"""Whole images of one short side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ShortSide:
    """Resize the shorter side, bilinear with antialiasing, and cut nothing off: images keep their proportions.

    Args:
        side: what the shorter side becomes, in pixels.

    Raises:
        ValueError: if it is below 1.
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side must be at least 1 pixel, got {self.side}")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the side, and the step in words."""
        return {"side": self.side, "steps": f"Resize({self.side}, bilinear)"}

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image to a uint8 tensor (C, H, W)."""
        return self

    def __call__(self, image: Any) -> Tensor:
        """Resize a Pillow image as torchvision's Resize does, and make it a uint8 tensor (C, H, W)."""
        import numpy as np
        import torch
        from PIL import Image

        width, height = image.size
        short = min(width, height)
        size = self.side * width // short, self.side * height // short  # the longer side is cut to whole pixels
        resized = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized, copy=True)).permute(2, 0, 1).contiguous()
