"""How a projection lands inside its ball although pixels are rounded."""

import torch
from torch import Tensor

from robust_attacks import _host

PIXELS = (1, 2, 3)
SLACK = 1e-12  # relative room that the rounding of float64 sums may take


def length(offsets: Tensor, order: int) -> Tensor:
    """The L1 or L2 length of float64 offsets, (N, 1, 1, 1); overwrites them."""
    if order == 1:
        return offsets.abs_().sum(dim=PIXELS, keepdim=True)
    return offsets.square_().sum(dim=PIXELS, keepdim=True).sqrt_()


def aim(images: Tensor, radius: Tensor | float, order: int) -> Tensor | float:
    """A radius so little smaller, at most by 1e-6, that pixels rounded to the nearest number rarely leave the ball.

    The rounding of a pixel is at most half of the last place of 1. Under L2 the sum of all is about as long as one,
    since they point anywhere; under L1 it grows with the root of the number of pixels.
    """
    unit = torch.finfo(images.dtype).eps / 2
    rounding = unit if order == 2 else unit * images[0].numel() ** 0.5
    if isinstance(radius, Tensor):
        return radius * (1 - SLACK) - (2 * unit * radius).clamp(min=rounding).minimum(1e-6 * radius)
    return radius * (1 - SLACK) - min(max(2 * unit * radius, rounding), 1e-6 * radius)


def move(images: Tensor, origin: Tensor, moves: Tensor, radius: Tensor | float, order: int) -> Tensor:
    """The images moved by float64 `moves` and clipped; where rounding leaves the ball, pixels are rounded inwards."""
    moved = (origin + moves).clamp_(0, 1).to(images.dtype)
    outside = length(moved - origin, order) > radius
    if _host.can_look(images) and not bool(outside.any()):
        return moved
    too_far = outside & ((moved - origin).abs_() > moves.abs())
    return torch.where(too_far, torch.nextafter(moved, images), moved)


def shrink(images: Tensor, origin: Tensor, moves: Tensor, radius: Tensor | float, order: int) -> Tensor:
    """The images moved by `moves` that may reach a little too far: they are cut to the box and to their length."""
    moves = (origin + moves).clamp_(0, 1).sub_(origin)
    lengths = length(moves.clone(), order)
    return move(
        images,
        origin,
        moves.mul_((aim(images, radius, order) / lengths.clamp_(min=1e-300)).clamp_(max=1)),
        radius,
        order,
    )
