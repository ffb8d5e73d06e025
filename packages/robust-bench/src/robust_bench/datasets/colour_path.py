"""From RGB to YUV and back in 8 bits, as cameras and videos do, with what goes wrong on that way."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

Encoding = Literal["601-full", "601-limited", "709-full", "709-limited"]
"""A standard and its range: full is 0..255 for all three planes, limited is 16..235 for Y, 16..240 for U and V."""

ENCODINGS: Mapping[str, tuple[float, float, bool]] = MappingProxyType(
    {
        "601-full": (0.299, 0.114, True),  # of JPEG files
        "601-limited": (0.299, 0.114, False),
        "709-full": (0.2126, 0.0722, True),
        "709-limited": (0.2126, 0.0722, False),
    }
)
"""By name, the weights of red and blue in luma and whether the range is full."""


def to_yuv(images: Tensor, encoding: Encoding) -> Tensor:
    """Turn uint8 images (N, 3, H, W) from RGB into Y, U (Cb) and V (Cr), rounded to 8 bits.

    ITU-R BT.601-7, section 2.5, BT.709-6, sections 3.2 to 3.5; the full range as in JFIF (ITU-T T.871, section 7).
    """
    matrix, offset = _matrix(encoding)
    return _levels(_mixed(images, matrix) + offset)


def to_rgb(planes: Tensor, encoding: Encoding) -> Tensor:
    """Turn uint8 Y, U and V (N, 3, H, W) back into RGB: the inverse of `to_yuv`, rounded and clipped to 8 bits."""
    matrix, offset = _matrix(encoding)
    return _levels(_mixed(planes - offset, torch.linalg.inv(matrix)))


@dataclass(frozen=True, kw_only=True)
class ColourPath:
    """RGB images that were YUV in between.

    Args:
        written: how they became YUV.
        read: how they became RGB again; another encoding than `written` is the common mistake of players and decoders.
        chroma: "4:4:4" keeps U and V for every pixel; 4:2:0 keeps the mean of each 2 x 2 pixels, rounded to 8 bits, and
            repeats it ("4:2:0 nearest") or goes linearly from centre to centre ("4:2:0 bilinear").
    """

    written: Encoding
    read: Encoding
    chroma: Literal["4:4:4", "4:2:0 nearest", "4:2:0 bilinear"] = "4:4:4"

    def __call__(self, images: Tensor) -> Tensor:
        """Send uint8 images (N, 3, H, W) there and back."""
        planes = to_yuv(images, self.written)
        if self.chroma != "4:4:4":
            planes = torch.cat((planes[:, :1], _subsampled(planes[:, 1:], self.chroma.partition(" ")[2])), dim=1)
        return to_rgb(planes, self.read)


COLOUR_PATHS: Mapping[str, ColourPath | None] = MappingProxyType(
    {
        "rgb": None,
        "601-full": ColourPath(written="601-full", read="601-full"),
        "601-limited": ColourPath(written="601-limited", read="601-limited"),
        "709-full": ColourPath(written="709-full", read="709-full"),
        "709-limited": ColourPath(written="709-limited", read="709-limited"),
        "601-read-as-709": ColourPath(written="601-limited", read="709-limited"),
        "709-read-as-601": ColourPath(written="709-limited", read="601-limited"),
        "full-read-as-limited": ColourPath(written="601-full", read="601-limited"),
        "limited-read-as-full": ColourPath(written="601-limited", read="601-full"),
        "420-nearest": ColourPath(written="601-limited", read="601-limited", chroma="4:2:0 nearest"),
        "420-bilinear": ColourPath(written="601-limited", read="601-limited", chroma="4:2:0 bilinear"),
    }
)
"""The cells of `imagenet-s:colour` by name; "rgb" leaves images as they are."""


def _matrix(encoding: Encoding) -> tuple[Tensor, Tensor]:
    """From levels of RGB to levels of YUV: a matrix (3, 3), and what is added (3, 1, 1); float64."""
    red, blue, full = ENCODINGS[encoding]
    luma = torch.tensor([red, 1.0 - red - blue, blue], dtype=torch.float64)
    of_red, _, of_blue = torch.eye(3, dtype=torch.float64)
    u, v = (of_blue - luma) / (2.0 * (1.0 - blue)), (of_red - luma) / (2.0 * (1.0 - red))
    height, width, lowest = (255.0, 255.0, 0.0) if full else (219.0, 224.0, 16.0)
    offset = torch.tensor([lowest, 128.0, 128.0], dtype=torch.float64)
    return torch.stack((height * luma, width * u, width * v)) / 255.0, offset[:, None, None]


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, images.double())


def _levels(values: Tensor) -> Tensor:
    return (values + 0.5).floor_().clamp_(0.0, 255.0).to(torch.uint8)


def _subsampled(chroma: Tensor, how: str) -> Tensor:
    """Halve both sides and double them again; at odd sides the last row or column is repeated first."""
    height, width = chroma.shape[2:]
    even = nn.functional.pad(chroma.double(), (0, width % 2, 0, height % 2), mode="replicate")
    small = _levels(nn.functional.avg_pool2d(even, 2)).double()
    large = nn.functional.interpolate(small, scale_factor=2, mode=how)
    return _levels(large)[:, :, :height, :width]
