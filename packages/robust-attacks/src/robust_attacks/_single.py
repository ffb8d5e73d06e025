"""The projections with pixels in float32 and sums in float64: a third of the time, for candidates that are near."""

import math

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._landing import PIXELS, aim, length, shrink
from robust_attacks.hyperplane import sums

_MOST_PASSES = 200  # far more than ever seen; whatever they have found is brought inside
_NEARLY = 1.5e-6  # what float32 pixels, added in groups, may do to a sum, relative
_NEAR = 2.0  # offsets up to which float32 finds the threshold of L1 as exactly as a pixel


def applies(images: Tensor, candidates: Tensor) -> bool:
    """Whether all is float32, finite and can be looked at. A sum that overflows is as good as infinite: far away."""
    single = images.dtype == candidates.dtype == torch.float32 and _host.can_look(images)
    return single and math.isfinite(float(candidates.sum()))


def project(
    images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float, order: int
) -> tuple[Tensor, Tensor | None]:
    """`projections.project_l1` or `project_l2`, and which images are too far away for it, (N, 1, 1, 1), None for none.

    These come back inside too, but not as the nearest points.
    """
    clipped = candidates.clamp(0, 1)
    rooms = clipped - images
    rooms = rooms.abs_() if order == 1 else rooms.square_()
    total = _sum(rooms)
    limit = radius**order
    outside = total > limit * (1 + _NEARLY)
    if bool((outside ^ (total > limit * (1 - _NEARLY))).any()):  # so close to the sphere that float32 cannot tell
        outside = length(clipped.double().sub_(origin), order) > radius
    few = int(outside.sum())
    if not few:
        return clipped, None
    # Where a candidate is not clipped, the size of its offset takes the place of the room: it is never passed either.
    search = _search_l1 if order == 1 else _search_l2
    offsets = candidates - images
    found, far = search(offsets, rooms, total, outside, aim(images, radius, order))
    found.add_(images).clamp_(0, 1)
    beyond = outside & (length(found.double().sub_(origin), order) > radius)
    if bool(beyond.any()):
        found = torch.where(beyond, shrink(images, origin, found - origin, radius, order), found)
    if few < len(images):
        found = torch.where(outside, found, clipped)
    return found, far if bool(far.any()) else None


def _search_l2(
    offsets: Tensor, rooms: Tensor, total: Tensor, outside: Tensor, goal: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The offsets times the root of q, and which are far, where rooms (squared) and their sums use up float32."""
    squares, wanted = offsets.square(), goal**2
    slope = _sum(torch.le(squares, rooms, out=torch.empty_like(squares)).mul_(squares))
    left = wanted - (total - slope)  # for the entries below their room, whose squares are their rooms at q = 1
    far = outside & ~(left > wanted / 16)
    done = far | ~outside
    factor = torch.where(done, 1.0, left / slope)  # Newton's step from 1
    for _ in range(_MOST_PASSES):
        before = slope
        below = (squares * factor.float()).le_(rooms)
        slope = _sum(below * squares)
        done |= slope == before  # the same set of entries below their room: the last step has ended at the root
        if bool(done.all()):
            break
        left = wanted - (total - _sum(below.mul_(rooms)))
        factor = torch.where(done, factor, torch.maximum(factor, left / slope.clamp(min=1e-300)))
    return offsets.mul_(factor.sqrt_().float()), far


def _search_l1(
    offsets: Tensor, rooms: Tensor, total: Tensor, outside: Tensor, goal: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The offsets with their sizes cut down by t, and which are far, where t would not be as exact as a pixel."""
    sizes = offsets.abs()
    high = sizes.amax(dim=PIXELS, keepdim=True)
    far = outside & (high > _NEAR)
    low = torch.zeros_like(high)
    cut = low
    excess, left = total - goal, sizes
    done = far | ~outside
    for _ in range(_MOST_PASSES):
        slope = _sum(torch.le(left, rooms, out=torch.empty_like(left)).mul_(left.sign()))
        low = torch.where(excess > 0, torch.maximum(low, cut), low)
        high = torch.where(excess > 0, high, torch.minimum(high, cut))
        step, middle = (cut + excess / slope).float(), low + (high - low) / 2
        narrow = ~((middle > low) & (middle < high))
        solved = (excess.abs() <= 1e-8 * goal) | (step == cut)  # no float32 number is nearer to the root
        step = torch.where((step > low) & (step < high), step, middle)
        cut = torch.where(done | solved, cut, torch.where(narrow, high, step))
        done |= solved | narrow
        if bool(done.all()):
            break
        left = (sizes - cut).clamp_(min=0)
        excess = _sum(torch.minimum(left, rooms)) - goal
    return torch.minimum((sizes - cut).clamp_(min=0), rooms).mul_(offsets.sign_()), far


def _sum(numbers: Tensor) -> Tensor:
    return sums(numbers.flatten(1))[:, None, None, None]
