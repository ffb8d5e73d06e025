"""Exact projections onto the intersection of a ball and the box [0, 1]^d, without sorting.

The nearest point of the intersection has a single unknown per image, the root of a piecewise linear function of one
variable. All images of a batch take their steps together, in float64 here. On the CPU, float32 candidates near
their balls are left to `_single`; the results agree within the rounding of pixels.

On the CPU a search ends when all images are done, and candidates that are not finite are refused. On other devices the
host never waits: a fixed number of masked passes is made, and an image whose candidate is not finite comes back as it
is. Every result is measured in float64 before it is handed back, so it is inside whatever the search has found.
"""

import torch
from torch import Tensor

from robust_attacks import _host, _single
from robust_attacks._landing import PIXELS, SLACK, aim, length, move

_FAR = 1e150  # offsets beyond are scaled down to it, since their squares would leave float64
_MOST_NEWTON_STEPS = 200  # far more than ever seen; each is inside the ball
_MOST_BISECTIONS = 4096  # float64 has room for about 2100 halvings
_FIXED_PASSES = {torch.float32: 32, torch.float64: 64}  # where the host does not look: enough, see the searches


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
        ValueError: if candidates are not finite; only on the CPU, see above.
    """
    if _single.applies(images, candidates):
        found, far = _single.project(images, origin, candidates, radius, 2)
        return found if far is None else torch.where(far, _nearest_l2(images, origin, candidates, radius), found)
    return _nearest_l2(images, origin, candidates, radius)


def _nearest_l2(images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float) -> Tensor:
    candidates, clipped, lengths, farthest = _clip(images, origin, candidates, radius, 2)
    if farthest is None:
        return clipped
    outside = lengths > radius
    offsets = candidates - origin
    rooms = _rooms(offsets, origin).square_()
    scale = (farthest / _FAR).clamp_(min=1)  # of offsets and, in return, of the root of q
    squares = offsets.div_(scale).square()
    goal = aim(images, radius, 2)
    wanted = goal**2
    # The clipped candidate, shrunk onto the sphere, is where to start: past the root (the box cuts the shrunk candidate
    # less), but near. Newton's step from there lands at or before the root, since the tangent lies above G; so does
    # the candidate that is shrunk onto the sphere first and clipped then.
    factor = torch.where(outside, goal / lengths * scale, 1.0).clamp_(max=1e150).square_()
    fixed, slope = _piece(squares, rooms, factor)
    radial = wanted / squares.sum(dim=PIXELS, keepdim=True).clamp_(min=1e-300)
    factor = torch.where(outside, torch.maximum((wanted - fixed) / slope, radial), factor)
    if _host.can_look(images):
        factor = _newton(squares, rooms, factor, wanted, ~outside)
    else:
        factor = _climbed(squares, rooms, factor, wanted, _FIXED_PASSES[images.dtype])
    return torch.where(outside, move(images, origin, offsets.mul_(factor.sqrt()), radius, 2), clipped)


def _newton(squares: Tensor, rooms: Tensor, factor: Tensor, wanted: Tensor | float, done: Tensor) -> Tensor:
    """The root of `G(q) = wanted`, from `factor` at or before it, until all images are done.

    All but the offsets are (N, 1, 1, 1).
    """
    slope = torch.full_like(factor, -1.0)
    for _ in range(_MOST_NEWTON_STEPS):
        before = slope
        fixed, slope = _piece(squares, rooms, factor)
        # The factor only rises and the set of entries below their room only shrinks: the same slope is the same set,
        # and the same set means that the last step has ended at the root.
        done = done | (slope == before)
        if bool(done.all()):
            break
        factor = torch.where(done, factor, torch.maximum(factor, (wanted - fixed) / slope))
    return factor


def _climbed(squares: Tensor, rooms: Tensor, factor: Tensor, wanted: Tensor | float, passes: int) -> Tensor:
    """The same root without a look, by as many of Newton's steps; an image that has arrived stays where it is.

    With every step, the gap that is left times the slope of G falls at least to a quarter: a tangent of a concave
    function loses of the gap what the slope keeps. The gap is at most the slope times the way to the root, so, from
    the start of `_nearest_l2`, k steps leave less than 2^-k of `wanted`, times the length of the candidate's offset
    over that of the clipped candidate's. 32 steps are enough for float32, and 64 for float64, if these lengths are
    within a factor of 256; six are usual.

    A device is kept busy by few operations per step that write little: `where` with a number would be two.
    """
    kinks, nothing = rooms / squares, squares.new_zeros(())  # NaN where there is neither offset nor room: nothing too
    for _ in range(passes):
        below = kinks > factor
        slope = torch.where(below, squares, nothing).sum(dim=PIXELS, keepdim=True).clamp_(min=1e-300)
        fixed = torch.where(below, nothing, rooms).sum(dim=PIXELS, keepdim=True)
        factor = torch.maximum(factor, (wanted - fixed) / slope)
    return factor


def _piece(squares: Tensor, rooms: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The linear piece of G to the right of `factor`, as `fixed + slope * factor`; both (N, 1, 1, 1), slope never zero.

    Both are sums of the terms that belong to them, not differences: then the root is right to the last digits also when
    the ball is tiny and the candidate far away.
    """
    scaled = squares * factor
    fixed = torch.ge(scaled, rooms, out=torch.empty_like(scaled)).mul_(rooms).sum(dim=PIXELS, keepdim=True)
    slope = scaled.lt_(rooms).mul_(squares).sum(dim=PIXELS, keepdim=True)
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
        ValueError: if candidates are not finite; only on the CPU, see above.
    """
    if _single.applies(images, candidates):
        found, far = _single.project(images, origin, candidates, radius, 1)
        return found if far is None else torch.where(far, _nearest_l1(images, origin, candidates, radius), found)
    return _nearest_l1(images, origin, candidates, radius)


def _nearest_l1(images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float) -> Tensor:
    candidates, clipped, lengths, farthest = _clip(images, origin, candidates, radius, 1)
    if farthest is None:
        return clipped
    outside = lengths > radius
    offsets = candidates - origin
    sizes, rooms = offsets.abs(), _rooms(offsets, origin)
    high = (2 * farthest).clamp_(max=torch.finfo(torch.float64).max)
    wanted = aim(images, radius, 1)
    if _host.can_look(images):
        cut = _bracketed(sizes, rooms, high, wanted, ~outside)
    else:
        cut = _bisected(sizes, rooms, high, wanted, _FIXED_PASSES[images.dtype])
    moves = torch.minimum((sizes - cut).clamp_(min=0), rooms).mul_(offsets.sign_())
    return torch.where(outside, move(images, origin, moves, radius, 1), clipped)


def _bracketed(sizes: Tensor, rooms: Tensor, high: Tensor, wanted: Tensor | float, done: Tensor) -> Tensor:
    """The root of `h(t) = wanted` in [0, high] by Newton's steps inside a bracket, until all images are done."""
    low = torch.zeros_like(high)
    cut = low
    for _ in range(_MOST_BISECTIONS):
        if bool(done.all()):
            break
        left = (sizes - cut).clamp_(min=0)
        excess = torch.minimum(left, rooms).sum(dim=PIXELS, keepdim=True) - wanted
        slope = torch.le(left, rooms, out=torch.empty_like(left)).mul_(left.sign_()).sum(dim=PIXELS, keepdim=True)
        low = torch.where(excess > 0, torch.maximum(low, cut), low)
        high = torch.where(excess > 0, high, torch.minimum(high, cut))
        step = cut + excess / slope
        middle = low + (high - low) / 2
        step = torch.where((step > low) & (step < high), step, middle)
        # Either the equation holds, or the bracket is down to neighbouring numbers: then its feasible end is taken.
        solved = excess.abs() <= SLACK * wanted
        narrow = ~((middle > low) & (middle < high))
        cut = torch.where(done | solved, cut, torch.where(narrow, high, step))
        done = done | solved | narrow
    return torch.where(done, cut, high)


def _bisected(sizes: Tensor, rooms: Tensor, high: Tensor, wanted: Tensor | float, passes: int) -> Tensor:
    """The same root without a look, from above: to 2^-passes of `high`, so no pixel is farther than that from exact."""
    low = torch.zeros_like(high)
    for _ in range(passes):
        middle = low + (high - low) / 2
        beyond = torch.minimum((sizes - middle).clamp_(min=0), rooms).sum(dim=PIXELS, keepdim=True) > wanted
        low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
    return high


def _clip(
    images: Tensor, origin: Tensor, candidates: Tensor, radius: Tensor | float, order: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The candidates, those clipped to the box, how far from their images these are, and a bound of all offsets.

    The last two are float64 (N, 1, 1, 1). A clipped candidate inside is the answer, since its offset is
    sign(v) min(|v|, room); None for the bound says that this holds for all. A device's candidates that are not
    finite are replaced by their images.
    """
    farthest = candidates.abs().amax(dim=PIXELS, keepdim=True).double()  # vector_norm(inf) is ten times slower
    if not _host.can_look(images):
        finite = farthest < torch.inf
        candidates = torch.where(finite, candidates, images)
        farthest = torch.where(finite, farthest, 0.0)
    clipped = candidates.clamp(0, 1).to(images.dtype)
    lengths = length(clipped - origin, order)
    if _host.can_look(images):
        if not bool((farthest < torch.inf).all()):
            raise ValueError("candidates must be finite, got NaN or infinite pixels: look at the step that led to them")
        if not bool((lengths > radius).any()):
            return candidates, clipped, lengths, None
    return candidates, clipped, lengths, farthest + 1


def _rooms(offsets: Tensor, origin: Tensor) -> Tensor:
    """How far each pixel can go in the direction of its offset before it meets the box: 1 - x upwards, else x."""
    return torch.gt(offsets, 0, out=torch.empty_like(offsets)).sub_(origin).abs_()
