"""Exact projections onto the intersection of a ball and the box [0, 1]^d, without sorting.

The nearest point of the intersection has a single unknown per image, the root of a piecewise linear function of one
variable. All images of a batch take their Newton steps together, in float64.
"""

import torch
from torch import Tensor

_PIXELS = (1, 2, 3)
_SLACK = 1e-12  # relative room that the rounding of float64 sums may take
_FAR = 1e150  # offsets beyond are scaled down to it, since their squares would leave float64
_MOST_NEWTON_STEPS = 200  # far more than ever seen; each is inside the ball
_MOST_BISECTIONS = 4096  # float64 has room for about 2100 halvings


def project_l2(images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float) -> Tensor:
    """Nearest point to each candidate in the L2 ball around its image and in the box.

    Solves `argmin_u ||u - candidate||_2` subject to `||u - image||_2 <= radius` and `0 <= u <= 1`. With v the
    candidate's offset and room the distance to the face of the box in its direction, the offset of the answer is
    `sign(v) min(sqrt(q) |v|, room)`, where q <= 1 is the root of `G(q) = sum min(q v^2, room^2) = radius^2`. G is
    concave, so Newton's steps from before the root climb to it, and have reached it once the set of entries below their
    room stays the same.

    Args:
        images: (N, C, H, W) in [0, 1], float32 or float64.
        origin: `images.double()`, which a caller with many candidates computes once.
        candidates: (N, C, H, W), any finite values.
        radius: in pixel units, a number or float64 (N, 1, 1, 1).

    Raises:
        ValueError: if candidates are not finite.
    """
    clipped, length, farthest, some, far = _clip(images, origin, candidates, radius, 2)
    if not some:
        return clipped
    outside = length > radius
    offsets = candidates - origin
    rooms = _rooms(offsets, origin).square_()
    scale = (farthest / _FAR).clamp_(min=1)  # of offsets and, in return, of the root of q
    squares = (offsets.div_(scale) if far else offsets).square()
    aim = _aim(images, radius)
    wanted = aim.square()
    # The clipped candidate, shrunk onto the sphere, is where to start: past the root (the box cuts the shrunk candidate
    # less), but near. Newton's step from there lands at or before the root, since the tangent lies above G.
    factor = torch.where(outside, aim / length * scale, 1.0).clamp_(max=1e150).square_()
    fixed, slope = _piece(squares, rooms, factor)
    factor = torch.where(outside, (wanted - fixed) / slope, factor).clamp_(min=0)
    done = ~outside
    for _ in range(_MOST_NEWTON_STEPS):
        before = slope
        fixed, slope = _piece(squares, rooms, factor)
        # From here on the factor only rises and the set of entries below their room only shrinks: the same slope
        # is the same set, and the same set means that the last step has ended at the root.
        done |= slope == before
        if bool(done.all()):
            break
        factor = torch.where(done, factor, torch.maximum(factor, (wanted - fixed) / slope))
    return torch.where(outside, _move(images, origin, offsets.mul_(factor.sqrt()), radius, 2), clipped)


def _piece(squares: Tensor, rooms: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The linear piece of G to the right of `factor`, as `fixed + slope * factor`; both (N, 1, 1, 1), slope never zero.

    Both are sums of the terms that belong to them, not differences: then the root is right to the last digits also when
    the ball is tiny and the candidate far away.
    """
    scaled = squares * factor
    fixed = torch.ge(scaled, rooms, out=torch.empty_like(scaled)).mul_(rooms).sum(dim=_PIXELS, keepdim=True)
    slope = scaled.lt_(rooms).mul_(squares).sum(dim=_PIXELS, keepdim=True)
    return fixed, slope.clamp_(min=1e-300)


def project_l1(images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float) -> Tensor:
    """Nearest point (in L2) to each candidate in the L1 ball around its image and in the box.

    Solves `argmin_u ||u - candidate||_2` subject to `||u - image||_1 <= radius` and `0 <= u <= 1`: Croce and Hein,
    "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021, arXiv:2103.01208 (without
    the box: Duchi, Shalev-Shwartz, Singer, Chandra, ICML 2008). The offset of the answer is
    `sign(v) min(max(|v| - t, 0), room)`, where t is the root of `h(t) = sum min(max(|v| - t, 0), room) = radius`.
    h falls but is neither convex nor concave, so Newton's steps are kept inside a bracket and replaced by its midpoint
    when they leave it. t is found to 1e-16 of the largest offset, so for candidates within millions of pixel units
    the answer is as exact as float64 allows; for those farther off it is still inside.

    Args:
        images: (N, C, H, W) in [0, 1], float32 or float64.
        origin: `images.double()`, which a caller with many candidates computes once.
        candidates: (N, C, H, W), any finite values.
        radius: in pixel units, a number or float64 (N, 1, 1, 1).

    Raises:
        ValueError: if candidates are not finite.
    """
    clipped, length, farthest, some, _ = _clip(images, origin, candidates, radius, 1)
    if not some:
        return clipped
    outside = length > radius
    offsets = candidates - origin
    sizes, rooms = offsets.abs(), _rooms(offsets, origin)
    wanted = _aim(images, radius)
    high = (2 * farthest).clamp_(max=torch.finfo(torch.float64).max)
    low = torch.zeros_like(high)
    cut = low
    done = ~outside
    for _ in range(_MOST_BISECTIONS):
        if bool(done.all()):
            break
        left = (sizes - cut).clamp_(min=0)
        excess = torch.minimum(left, rooms).sum(dim=_PIXELS, keepdim=True) - wanted
        slope = torch.le(left, rooms, out=torch.empty_like(left)).mul_(left.sign_()).sum(dim=_PIXELS, keepdim=True)
        low = torch.where(excess > 0, torch.maximum(low, cut), low)
        high = torch.where(excess > 0, high, torch.minimum(high, cut))
        step = cut + excess / slope
        middle = low + (high - low) / 2
        step = torch.where((step > low) & (step < high), step, middle)
        # Either the equation holds, or the bracket is down to neighbouring numbers: then its feasible end is taken.
        solved = excess.abs() <= _SLACK * wanted
        narrow = ~((middle > low) & (middle < high))
        cut = torch.where(done | solved, cut, torch.where(narrow, high, step))
        done |= solved | narrow
    cut = torch.where(done, cut, high)
    moves = torch.minimum((sizes - cut).clamp_(min=0), rooms).mul_(offsets.sign_())
    return torch.where(outside, _move(images, origin, moves, radius, 1), clipped)


def _clip(
    images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float, order: int
) -> tuple[Tensor, Tensor, Tensor, bool, bool]:
    """The candidates clipped to the box, how far from their images they then are, a bound of their offsets before, ...

    ... both float64 (N, 1, 1, 1); whether any of them leaves its ball (a clipped candidate inside is the answer, since
    its offset is sign(v) min(|v|, room)); and whether any candidate is too far away to be squared.
    """
    clipped = candidates.clamp(0, 1).to(images.dtype)
    length = _length(clipped - origin, order)
    farthest = candidates.abs().amax(dim=_PIXELS, keepdim=True).double() + 1  # vector_norm(inf) is ten times slower
    # One question to the device for both: whether they are finite, and whether there is anything to do.
    most, some = torch.stack((farthest.max(), (length > radius).any())).tolist()
    if not most < torch.inf:
        raise ValueError("candidates must be finite, got NaN or infinite pixels: look at the step that led to them")
    return clipped, length, farthest, bool(some), most > _FAR


def _length(offsets: Tensor, order: int) -> Tensor:
    """The L1 or L2 length of float64 offsets, (N, 1, 1, 1); overwrites them."""
    if order == 1:
        return offsets.abs_().sum(dim=_PIXELS, keepdim=True)
    return offsets.square_().sum(dim=_PIXELS, keepdim=True).sqrt_()


def _rooms(offsets: Tensor, origin: Tensor) -> Tensor:
    """How far each pixel can go in the direction of its offset before it meets the box: 1 - x upwards, else x."""
    return torch.gt(offsets, 0, out=torch.empty_like(offsets)).sub_(origin).abs_()


def _aim(images: Tensor, radius: Tensor | float) -> Tensor:
    """A radius so little smaller that pixels rounded to the nearest number rarely lie outside the ball."""
    radius = torch.as_tensor(radius, dtype=torch.float64, device=images.device)
    return radius * (1 - _SLACK) - (1e-7 * radius).clamp(max=torch.finfo(images.dtype).eps)


def _move(images: Tensor, origin: Tensor, moves: Tensor, radius: Tensor | float, order: int) -> Tensor:
    """The images moved by float64 `moves` and clipped; where rounding leaves the ball, pixels are rounded inwards."""
    moved = (origin + moves).clamp_(0, 1).to(images.dtype)
    outside = _length(moved - origin, order) > radius
    if not bool(outside.any()):
        return moved
    too_far = outside & ((moved - origin).abs_() > moves.abs())
    return torch.where(too_far, torch.nextafter(moved, images), moved)
