"""Training images through random decoders and resizers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_bench.datasets.decoded import channels_first
from robust_bench.datasets.decoders import DECODERS
from robust_bench.datasets.library_resize import By, check_resizing, resized


@dataclass(frozen=True, kw_only=True)
class RandomReading:
    """How a file becomes a training image: a decoder and a resizer, of a random part of it.

    Tang et al., "RobustART", arXiv:2109.05211 (ImageNet-S): trained with one pair, as all models are without knowing,
    a model falls for others; trained with a mix of them, less so. The part is that of torchvision's RandomResizedCrop
    (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842): its area is a uniform share of the
    image's, the logarithm of its width / height is uniform; after ten that do not fit, the largest centre that does.

    Args:
        cells: pairs of decoder and resizer, of which every image gets one at random, e.g.
            `(("pil", "pil-bilinear"),)` or all that are there, `robust_bench.datasets.decoders.available_cells()`.
        size: side of the model's input, in pixels.
        by: "library" resizes by the library in the resizer's name, "torch" by `robust_bench.datasets.resizers.resize`.
        scale: smallest and largest share of the area, in (0, 1].
        ratio: smallest and largest width / height, above 0.

    Raises:
        ValueError: for another name, no cells, or a number out of its range.

    Examples:
        In a data set, `RandomReading(cells=available_cells()).read(file.read_bytes(), generator)`.
    """

    cells: tuple[tuple[str, str], ...]
    size: int = 224
    by: By = "library"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError("cells is empty: give at least one pair of decoder and resizer")
        for decoder, resizer in self.cells:
            if decoder not in DECODERS:
                raise ValueError(f"unknown decoder {decoder!r}: choose from {', '.join(DECODERS)}")
            check_resizing(resizer, self.by)
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if not 0.0 < self.scale[0] <= self.scale[1] <= 1.0:
            raise ValueError(f"scale must be two shares of the area, 0 < smallest <= largest <= 1, got {self.scale}")
        if not 0.0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two numbers, 0 < smallest <= largest, got {self.ratio}")

    def read(self, content: bytes, generator: torch.Generator | None = None) -> Tensor:
        """Turn the bytes of a file into uint8 (3, size, size).

        Raises:
            ValueError: if they cannot be decoded.
            ImportError: if a library is not installed, or cannot be imported.
        """
        decoder, resizer = self.cells[int(torch.randint(len(self.cells), (), generator=generator))]
        pixels = DECODERS[decoder](content)
        top, left, height, width = self.crop(len(pixels), pixels.shape[1], generator)
        part = pixels[top : top + height, left : left + width]
        return channels_first(resized(part, (self.size, self.size), resizer, self.by))

    def crop(self, height: int, width: int, generator: torch.Generator | None = None) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a part of an image of `height` x `width` pixels."""
        shortest, longest = (math.log(each) for each in self.ratio)
        for _ in range(10):
            area = height * width * float(torch.empty(()).uniform_(*self.scale, generator=generator))
            ratio = math.exp(float(torch.empty(()).uniform_(shortest, longest, generator=generator)))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top = int(torch.randint(height - high + 1, (), generator=generator))
                return top, int(torch.randint(width - wide + 1, (), generator=generator)), high, wide
        high = max(1, min(height, round(width / self.ratio[0])))
        wide = max(1, min(width, round(height * self.ratio[1])))
        return (height - high) // 2, (width - wide) // 2, high, wide
