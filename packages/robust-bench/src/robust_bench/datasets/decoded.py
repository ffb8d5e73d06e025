"""Images decoded and resized by chosen libraries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_bench.datasets.colour_path import COLOUR_PATHS
from robust_bench.datasets.decoders import DECODERS, Pixels, version
from robust_bench.datasets.library_resize import By, check_resizing, resized, resizing_name, resizing_version


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file becomes what a model takes: a decoder, a resize of both sides to 8/7 of the size, the centre.

    Tang et al., "RobustART", arXiv:2109.05211 (ImageNet-S). Nothing is encoded again.

    Args:
        decoder: one of `robust_bench.datasets.decoders.DECODERS`.
        resizer: one of `robust_bench.datasets.resizers.RESIZERS`.
        size: side of the model's input, in pixels.
        by: "library" resizes by the library in the resizer's name, "torch" by `robust_bench.datasets.resizers.resize`.
        colour: one of `robust_bench.datasets.colour_path.COLOUR_PATHS`, which the decoded image takes.

    Raises:
        ValueError: for another name, or a size below 1.
    """

    decoder: str
    resizer: str
    size: int = 224
    by: By = "library"
    colour: str = "rgb"

    def __post_init__(self) -> None:
        check_resizing(self.resizer, self.by)
        for name, choices in (("decoder", DECODERS), ("colour", COLOUR_PATHS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose from {', '.join(choices)}")
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")

    @property
    def side(self) -> int:
        """Of the resized image: 256 for 224."""
        return round(self.size * 8 / 7)

    @property
    def resized_by(self) -> str:
        """Who resizes: "Pillow", "OpenCV" or "torch"."""
        return resizing_name(self.resizer, self.by)

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that decode and resize, on which pixels depend; torch's is left out.

        Raises:
            ImportError: if one is not installed, or cannot be imported.
        """
        resizer = resizing_version(self.resizer, self.by)
        return {"decoder_version": version(self.decoder)} | ({} if resizer is None else {"resizer_version": resizer})

    @property
    def settings(self) -> dict[str, Any]:
        """Give the names, the versions, and the steps in words.

        Raises:
            ImportError: if a library is not installed, or cannot be imported.
        """
        resize = f"{self.resizer} (computed by {self.resized_by}) to {self.side} x {self.side}"
        colour = "" if self.colour == "rgb" else f"{self.colour}, "
        return {
            "decoder": self.decoder,
            "resizer": self.resizer,
            "resized_by": self.resized_by,
            "colour": self.colour,
            "size": self.size,
            **self.versions,
            "steps": f"decode by {self.decoder}, {colour}{resize}, CenterCrop({self.size})",
        }

    def transform(self) -> Callable[[Any], Tensor]:
        """Give `read`."""
        return self.read

    def read(self, content: bytes) -> Tensor:
        """Turn the bytes of a file into uint8 (3, size, size).

        Raises:
            ValueError: if they cannot be decoded.
            ImportError: if a library is not installed, or cannot be imported.
        """
        pixels = DECODERS[self.decoder](content)
        path = COLOUR_PATHS[self.colour]
        if path is not None:
            pixels = path(channels_first(pixels)[None])[0].permute(1, 2, 0).contiguous().numpy()
        start = (self.side - self.size) // 2
        whole = channels_first(resized(pixels, (self.side, self.side), self.resizer, self.by))
        return whole[:, start : start + self.size, start : start + self.size].clone()


def channels_first(pixels: Pixels) -> Tensor:
    """Give pixels (H, W, 3) as a tensor (3, H, W)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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
