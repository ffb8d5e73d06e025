"""Crops of their own for every image of a batch, resized to one size."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]
"""What a neighbour at a distance counts for, in steps of the coarser of both grids; 0 from some distance on."""

ATTEMPTS = 10
"""How often a box is drawn anew that does not fit into the image, before the central one is taken."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """One box per image, in whole pixels: int64 (N,) each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def triangle(distance: Tensor) -> Tensor:
    """Bilinear interpolation."""
    return (1 - distance.abs()).clamp_(min=0)


def cubic(distance: Tensor) -> Tensor:
    """Bicubic interpolation with a = -1/2 (Keys, 1981), as Pillow has it."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def resized_crop(images: Tensor, boxes: Boxes, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """Cut a box out of every image and resize it to `size` (height, width), with antialiasing.

    What `torchvision.transforms.v2.functional.resized_crop` does to single images, as two products of matrices, of
    which every image has its own; a box of that size is copied.

    Args:
        images: (N, C, H, W) of float32 or float64.
        boxes: inside the images.
        size: of the result.
        kernel: `triangle` or `cubic`, which may leave the range of the images by a little.
    """
    height, width = images.shape[2:]
    rows = _weights(boxes.top, boxes.height, size[0], height, kernel).to(images.dtype)
    columns = _weights(boxes.left, boxes.width, size[1], width, kernel).to(images.dtype)
    return torch.matmul(torch.matmul(rows[:, None], images), columns.mT[:, None])


def random_boxes(
    uniforms: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Boxes:
    """Make boxes of random area, shape and place, as `torchvision.transforms.v2.RandomResizedCrop` does.

    Args:
        uniforms: (N, 2 * ATTEMPTS + 2) from U[0, 1).
        height: of the images.
        width: of the images.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width over height; its logarithm is uniform.
    """
    area, shape, place = torch.split(uniforms.double(), [ATTEMPTS, ATTEMPTS, 2], dim=1)
    pixels = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * shape).exp()
    widths, heights = (pixels * aspect).sqrt().round().long(), (pixels / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    central = _central(height, width, ratio)
    found = fits.any(dim=1)
    chosen_height = heights.gather(1, first)[:, 0].where(found, central[0])
    chosen_width = widths.gather(1, first)[:, 0].where(found, central[1])
    spare_height, spare_width = height - chosen_height, width - chosen_width
    top, left = (place[:, 0] * (spare_height + 1)).long(), (place[:, 1] * (spare_width + 1)).long()
    return Boxes(
        top=top.where(found, spare_height // 2),
        left=left.where(found, spare_width // 2),
        height=chosen_height,
        width=chosen_width,
    )


def _central(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Give the size of the largest box whose shape lies between both ratios."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _weights(start: Tensor, length: Tensor, size: int, full: int, kernel: Kernel) -> Tensor:
    """Give, per image, what every pixel of an axis counts for in every pixel of the result: (N, size, full)."""
    device = start.device
    first, extent = start[:, None, None].double(), length[:, None, None].double()
    step = extent / size
    centres = (torch.arange(size, device=device)[:, None] + 0.5) * step
    pixels = torch.arange(full, device=device) - first
    weights = kernel((pixels + 0.5 - centres) / step.clamp(min=1))
    weights = weights * ((pixels >= 0) & (pixels < extent))
    return weights / weights.sum(dim=2, keepdim=True)
