"""Noise of a given norm after clipping."""

import torch
from torch import Tensor


def add_clip_aware(images: Tensor, noise: Tensor, eps: float) -> Tensor:
    """The points of [0, 1] at distance `eps` from `images` on the paths clip(images + t * noise), t >= 0.

    With r the room that a pixel has in the direction of its noise d, its squared distance is min(t^2 d^2, r^2). The sum
    grows with t^2 in straight pieces that meet where a pixel runs out of room, so t follows from those that have run
    out at distance eps. Gradients flow through t and the noise. Where even t = infinity is nearer than eps, that is the
    point.

    Rauber and Bethge, "Fast Differentiable Clipping-Aware Normalization and Rescaling", 2020, arXiv:2007.07677.

    Args:
        images: floats in [0, 1], (N, ...).
        noise: directions, (N, ...).
        eps: the distance, above 0.
    """
    flat, directions = images.flatten(1), noise.flatten(1)
    room = torch.where(directions >= 0, 1 - flat, flat)
    full = _out_of_room(room, directions.detach(), eps)
    left = eps**2 - torch.where(full, room, 0).square().sum(1, keepdim=True)
    free = torch.where(full, 0, directions).square().sum(1, keepdim=True)
    # Without a free pixel there is no t to find; 1 keeps the root's gradient finite.
    scale = torch.where(free > 0, left.clamp(min=0) / free.clamp(min=torch.finfo(free.dtype).tiny), 1).sqrt()
    steps = torch.where(full, directions.sign() * room, scale * directions)
    return (flat + steps).clamp(0, 1).view_as(images)


@torch.no_grad()
def _out_of_room(room: Tensor, directions: Tensor, eps: float) -> Tensor:
    """Which pixels are at a limit of [0, 1] when the distance is `eps`, (N, pixels) bool."""
    squares = directions.square()
    limits = torch.where(squares > 0, room.square() / squares, torch.inf)  # of t^2, where a pixel runs out
    limits, order = limits.sort(dim=1)
    spent = room.square().gather(1, order).cumsum(1)
    squares = squares.gather(1, order)
    free = squares.flip(1).cumsum(1).flip(1) - squares
    reached = spent + torch.where(limits.isfinite(), limits, 0) * free
    full = (reached <= eps**2) & limits.isfinite()
    return torch.zeros_like(full).scatter(1, order, full)
