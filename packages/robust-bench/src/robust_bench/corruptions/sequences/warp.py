"""Images read anew at other places: what turns, tilts and scales them.

All images of a size read at the same places, which are worked out and interpolated in float64: a place that is off by a
hundred-thousandth of a pixel, as in float32, would let exact grey levels fall.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from robust_bench.corruptions.levels import truncate

HALF = 0.5 / 255.0  # in [0, 1] units: added before truncation, it rounds to the nearest grey level

_TIE = 1e-9  # pixels: a place on the outline counts as if it had not been rounded


@dataclass(frozen=True, kw_only=True, eq=False)
class Reads:
    """Where the pixels of a result read in an image, and what is black.

    Args:
        places: float64 (1, h, w, 2), right and down, from -1 to 1 between the outer edges of the outermost pixels.
        inside: bool (h, w), False where the result is black; None where it fades to black over the edge instead: pixels
            beyond it count as black ones.
    """

    places: Tensor
    inside: Tensor | None


def reads_inside(down: Tensor, right: Tensor, size: tuple[int, int]) -> Reads:
    """Read inside of the image's outline, in whose last half pixel the outermost pixels are repeated; as Pillow does.

    Args:
        down: rows that are read, float64 (h, w), 0 at the outline, 1/2 at the centre of the first pixel.
        right: columns, likewise.
        size: height and width of the image.
    """
    height, width = (length - _TIE for length in size)
    inside = (down >= -_TIE) & (down < height) & (right >= -_TIE) & (right < width)
    return Reads(places=_places(down, right, size), inside=inside)


def reads_over_the_edge(down: Tensor, right: Tensor, size: tuple[int, int]) -> Reads:
    """Read with black pixels around the image; as OpenCV does. The arguments are those of `reads_inside`."""
    return Reads(places=_places(down, right, size), inside=None)


def warp(images: Tensor, reads: Reads, *, added: float = 0.0) -> Tensor:
    """Read images anew, bilinear, and truncate to 8 bits.

    Args:
        images: float64 (N, C, H, W) in [0, 1].
        reads: where.
        added: before truncation, in [0, 1] units.
    """
    border = "zeros" if reads.inside is None else "border"
    places = reads.places.expand(len(images), -1, -1, -1)
    out = grid_sample(images, places, padding_mode=border, align_corners=False)
    if reads.inside is not None:
        out.mul_(reads.inside)
    return truncate(out.add_(added).to(torch.float32))


def _places(down: Tensor, right: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.stack([right * (2.0 / width), down * (2.0 / height)], dim=-1).sub_(1.0)[None]
