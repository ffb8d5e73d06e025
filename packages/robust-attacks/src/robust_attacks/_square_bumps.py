"""The bumps of the Square attack for L2 and L1, and the tiles of them that it starts from."""

import torch
from torch import Tensor

from robust_attacks.random import ImageRandom


def bump(side: int, norm: int) -> Tensor:
    """The pattern eta of a window, float64 (side, side) of unit norm: a hill above, a valley below.

    Andriushchenko et al., ECCV 2020, arXiv:1912.00049, algorithm 3 and the figure beside it; for L1 the hills are
    steeper, 1 / (k + 1)^4 in place of 1 / (k + 1)^2.

    Args:
        side: in pixels, >= 1.
        norm: 2 or 1.
    """
    upper = side // 2
    both = torch.cat((_hill(upper, side, norm), -_hill(side - upper, side, norm)))
    return both / _norm(both, norm)


def _hill(height: int, width: int, norm: int) -> Tensor:
    """Concentric squares around the middle, cut to (height, width), of unit norm."""
    hill = torch.zeros(height, width, dtype=torch.float64)
    row, column = height // 2, width // 2
    for k in range(max(row, column) + 1):
        rows, columns = slice(max(row - k, 0), row + k + 1), slice(max(column - k, 0), column + k + 1)
        hill[rows, columns] += (k + 1.0) ** (-2 if norm == 2 else -4)
    return hill / _norm(hill, norm)


def _norm(pattern: Tensor, norm: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(pattern, norm)
    return length


def tiles(images: Tensor, random: ImageRandom, norm: int) -> Tensor:
    """Bumps side by side, with a sign per image, tile and channel and an orientation per image and tile.

    Tiles are a fifth of the images' shorter side, so that five of them, or a few more, go into it; images of a shorter
    side below five pixels get one tile.

    Args:
        images: (N, C, H, W), for their shape.
        random: of the images.
        norm: 2 or 1.

    Returns:
        Float64 (N, C, H, W), zero outside the tiles.
    """
    count, channels, height, width = images.shape
    shorter = min(height, width)
    side = shorter // 5 or shorter
    margin = (shorter - 5 * side) // 2 if shorter >= 5 else 0
    down, across = (height // side, width // side) if shorter >= 5 else (1, 1)
    sign = random.signs("square/start", (down * across, channels), dtype=torch.float64)
    turned = random.signs("square/start-orientation", (down * across,)) > 0
    pattern = bump(side, norm).to(images.device)
    rows, columns = (torch.arange(length, device=images.device) - margin for length in (height, width))
    row_of_tile, column_of_tile = rows.div(side, rounding_mode="floor"), columns.div(side, rounding_mode="floor")
    covered = ((row_of_tile >= 0) & (row_of_tile < down))[:, None] & (column_of_tile >= 0) & (column_of_tile < across)
    tile = (row_of_tile.clamp(0, down - 1)[:, None] * across + column_of_tile.clamp(0, across - 1)).flatten()
    places = (rows % side)[:, None], columns % side
    upright = torch.where(covered, pattern[places], 0.0).flatten()
    lying = torch.where(covered, pattern.T[places], 0.0).flatten()
    heights = torch.where(turned[:, tile], lying, upright)
    return (heights[:, :, None] * sign[:, tile]).transpose(1, 2).reshape(count, channels, height, width)
