"""Images decoded and resized by chosen libraries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_bench.datasets.decoders import DECODERS, RESIZERS, resized


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file becomes what a model takes: a decoder, a resize of both sides to 8/7 of the size, the centre.

    Tang et al., "RobustART", arXiv:2109.05211 (ImageNet-S). Nothing is encoded again.

    Args:
        decoder: one of `robust_bench.datasets.decoders.DECODERS`.
        resizer: one of `robust_bench.datasets.decoders.RESIZERS`.
        size: side of the model's input, in pixels.

    Raises:
        ValueError: for another name, or a size below 1.
    """

    decoder: str
    resizer: str
    size: int = 224

    def __post_init__(self) -> None:
        for name, choices in (("decoder", tuple(DECODERS)), ("resizer", RESIZERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose from {', '.join(choices)}")
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")

    @property
    def side(self) -> int:
        """Of the resized image: 256 for 224."""
        return round(self.size * 8 / 7)

    @property
    def settings(self) -> dict[str, Any]:
        """Give the names, and the steps in words."""
        steps = f"decode by {self.decoder}, {self.resizer} to {self.side} x {self.side}, CenterCrop({self.size})"
        return {"decoder": self.decoder, "resizer": self.resizer, "size": self.size, "steps": steps}

    def transform(self) -> Callable[[Any], Tensor]:
        """Give `read`."""
        return self.read

    def read(self, content: bytes) -> Tensor:
        """Turn the bytes of a file into uint8 (3, size, size).

        Raises:
            ValueError: if they cannot be decoded.
        """
        pixels = resized(DECODERS[self.decoder](content), self.side, self.resizer)
        start = (self.side - self.size) // 2
        cut = pixels[start : start + self.size, start : start + self.size]
        return torch.from_numpy(cut.copy()).permute(2, 0, 1).contiguous()


def read_encoded(file: Path, *, name: str, transform: Callable[[bytes], Tensor]) -> Tensor:
    """Read a file by what makes of its bytes a uint8 image; as floats in [0, 1].

    Raises:
        ValueError: if that fails; the message names the file.
    """
    try:
        out = transform(file.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for damaged files
        raise ValueError(f"cannot read the image {name}: {error}") from error
    return out.to(torch.float32).div_(255.0)
