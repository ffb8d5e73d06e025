"""Nearest points of the box [0, 1]^d on a hyperplane, exact and without sorting."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robust_attacks import _host

Norm = Literal["Linf", "L2", "L1"]

_CLOSE = {torch.float32: 1e-7, torch.float64: 1e-15}  # relative change of the multiplier at which Newton's steps end
_MOST_STEPS = 100  # on the CPU, far more than ever seen: each step either ends or clips more pixels
_LOCKED_STEPS = 12  # where the host must not wait; 4 to 6 are typical, and a step too few ends short of the plane
_SOUND = 1 / 8  # least share of the way that pixels off the box must make for float32 products to be good enough
_TOP = 64  # L1 looks at the heaviest d / 64 pixels first, at least 32: torch.topk turns to a slower method beyond that
_TINY = 1e-30


class Hyperplanes:
    """Hyperplanes `<w, v> = b`, one per row, and the way to them inside the box [0, 1]^d.

    The nearest point of hyperplane and box to a point in the box moves each pixel i by
    `m_i` towards the plane, where `0 <= m_i <= room_i` (the way to the face of the box) and `sum |w_i| m_i` is the
    excess `|<w, v> - b|`:

    - Linf: `m_i = min(t, room_i)`;  L2: `m_i = min(t |w_i|, room_i)`. The sum is concave, piecewise linear and
      increasing in t: Newton's steps from t = 0 climb to its root and never pass it.
    - L1: pixels of largest `|w_i|` use up their room; those of the last size needed share the rest in proportion to
      theirs.

    Where the plane passes by the box, the answer is the corner nearest to it. Croce and Hein, "Minimally distorted
    adversarial examples with a fast adaptive boundary attack", ICML 2020, arXiv:1907.02044, section 2, solve the same
    problems by sorting. Pixels are float32 where the points are; sums are float64, and where the moving pixels make
    only a small part of the way, so that rounding would show, the row is done in float64 altogether.

    Args:
        normals: w, (n, d), finite. Two projections onto the same planes share what depends on w alone.
        norm: "Linf", "L2" or "L1".
        locked: take the same number of steps for every row and never make the host wait for the device; None means
            wherever the host must not look, on every device but the CPU.

    Examples:
        >>> planes = Hyperplanes(torch.tensor([[1.0, 2.0]]), "L2")
        >>> planes.nearest(torch.tensor([[0.5, 0.5]]), excess=torch.tensor([0.5]))
        (tensor([[0.4000, 0.3000]]), tensor([0.2236], dtype=torch.float64))
        >>> planes.nearest(torch.tensor([[0.5, 0.1]]), excess=torch.tensor([0.5]))[0]
        tensor([[0.2000, 0.0000]])
    """

    def __init__(self, normals: Tensor, norm: Norm, locked: bool | None = None) -> None:
        self._normals = normals
        self._norm = norm
        self._locked = not _host.can_look(normals) if locked is None else locked
        self._sizes = normals.abs()
        self._top: tuple[Tensor, Tensor] | None = None
        if norm == "L1":
            return
        # Rows scaled by a power of two, so that no square leaves float32. frexp(0) has the exponent 0.
        exponents = self._sizes.amax(dim=1).frexp().exponent
        self._scales = torch.ldexp(torch.ones(len(normals), dtype=torch.float64, device=normals.device), -exponents)
        scales = self._scales[:, None].to(normals.dtype)
        self._sizes.mul_(scales)
        self._upwards = torch.gt(normals, 0, out=torch.empty_like(normals))
        if norm == "Linf":
            self._ways, self._slopes = normals.sign(), self._sizes
        else:
            self._ways, self._slopes = normals * scales, self._sizes.square()
            self._sizes.clamp_(min=_TINY)
        if self._locked:
            self._slopes = self._slopes.double()  # once, and not again for every sum
        self._slope = sums(self._slopes)

    def nearest(self, points: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest point to each of `points`, and how far it is away in the norm, float64 (n,).

        Args:
            points: (n, d) in [0, 1], of the dtype of the normals.
            excess: `<w, point> - b`, (n,).
        """
        if self._norm == "L1":
            return self._fill(points, excess.double())
        excess = excess.double() * self._scales
        sides = torch.where(excess >= 0, 1.0, -1.0).double()
        wanted = excess.abs()
        rooms = self._rooms(points, sides)
        parts = self._sizes * rooms
        if self._locked:
            parts = parts.double()
        corner = sums(parts) <= wanted
        kinks = rooms if self._norm == "Linf" else rooms.div_(self._sizes)
        if self._locked:
            nearest = self._moved(points, sides, self._climbed(kinks, parts, wanted))
            nearest = torch.where(corner[:, None], self._corners(points, sides), nearest)
            return nearest, lengths(self._norm, nearest - points)
        multiplier, share = self._solve(kinks, parts, wanted, corner)
        nearest = self._moved(points, sides, multiplier)
        length = multiplier if self._norm == "Linf" else lengths(self._norm, nearest - points)
        hard = (~corner & (wanted > 0) & (share < _SOUND)).nonzero()[:, 0]
        if len(hard) and points.dtype == torch.float32:
            planes = Hyperplanes(self._normals[hard].double(), self._norm)
            exact, exact_length = planes.nearest(points[hard].double(), excess[hard] / self._scales[hard])
            nearest[hard], length[hard] = exact.to(points.dtype), exact_length
        rows = corner.nonzero()[:, 0]
        if len(rows):
            nearest[rows] = self._corners(points, sides, rows)
            length[rows] = lengths(self._norm, nearest[rows] - points[rows])
        return nearest, length

    def _rooms(self, points: Tensor, sides: Tensor) -> Tensor:
        """How far each pixel can go: 1 - v upwards, else v. Upwards is where w > 0 on the lower side, w <= 0 above."""
        below = sides.to(points.dtype)[:, None]
        return torch.addcmul((below + 1) / 2, self._upwards, -below).sub_(points).abs_()

    def _moved(self, points: Tensor, sides: Tensor, multiplier: Tensor) -> Tensor:
        """Every pixel so far towards the plane as the multiplier says, or up to the face of the box."""
        steps = (-sides * multiplier).to(points.dtype)[:, None]
        return torch.addcmul(points, self._ways, steps).clamp_(0, 1)

    def _solve(self, kinks: Tensor, parts: Tensor, wanted: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """The root t of `sum_i min(t, kink_i) slope_i = wanted`, float64 (n,), where `parts = kinks * slopes`.

        And the share of `wanted` that the pixels off the box contribute. Rows that are `done` already get anything.
        """
        slope, multiplier = self._slope, self._first(wanted)
        buffer = torch.empty_like(kinks)
        for _ in range(_MOST_STEPS):
            at = multiplier.to(kinks.dtype)[:, None]
            left = sums(torch.gt(kinks, at, out=buffer).mul_(self._slopes))
            # Where the same pixels are off the box as before, the last step has ended at the root. What is done stays.
            slope, done = torch.where(done, slope, left), done | (left == slope)
            if bool(done.all()):
                break
            fixed = sums(torch.le(kinks, at, out=buffer).mul_(parts))
            further = ((wanted - fixed) / slope.clamp(min=_TINY)).clamp_(max=1 / _TINY)
            further = torch.where(done | (slope <= 0), multiplier, torch.maximum(further, multiplier))
            done = done | (further - multiplier <= _CLOSE[kinks.dtype] * further)
            multiplier = further
        return multiplier, slope * multiplier / wanted.clamp(min=_TINY)

    def _climbed(self, kinks: Tensor, parts: Tensor, wanted: Tensor) -> Tensor:
        """The same root by a fixed number of steps; a row that has arrived stays, one in a corner goes on and on.

        A device is kept busy by few operations per step: `where` with a number would be two, a sum with a type too.
        """
        multiplier, nothing = self._first(wanted), parts.new_zeros(())
        for _ in range(_LOCKED_STEPS):
            off = kinks > multiplier.to(kinks.dtype)[:, None]
            slope = sums(torch.where(off, self._slopes, nothing))
            fixed = sums(torch.where(off, nothing, parts))
            further = ((wanted - fixed) / slope.clamp_(min=_TINY)).clamp_(max=1 / _TINY)
            multiplier = torch.maximum(further, multiplier)
        return multiplier

    def _first(self, wanted: Tensor) -> Tensor:
        """Where the first step from 0 leads."""
        return (wanted / self._slope.clamp(min=_TINY)).clamp_(max=1 / _TINY)

    def _corners(self, points: Tensor, sides: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The corners nearest to the planes; pixels that the plane does not depend on stay where they are."""
        return (points[rows] - sides[rows, None] * self._normals[rows].sign()).clamp_(0, 1).to(points.dtype)

    def _fill(self, points: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """The L1 norm: from the pixels of largest weight alone where they suffice, else from all."""
        pixels = points.shape[1]
        if self._locked:
            return _share_out(self._normals, points, excess, _bisected)[:2]
        if self._top is None:
            self._top = self._sizes.topk(min(max(pixels // _TOP, 32), pixels), dim=1)
        nearest, length, left = self._fill_top(*self._top, self._normals, points, excess)
        if len(left):
            normals, points, excess = self._normals[left], points[left], excess[left]
            top = self._sizes[left].topk(min(max(pixels // 8, 32), pixels), dim=1)
            nearest[left], length[left], more = self._fill_top(*top, normals, points, excess)
            if len(more):
                left = left[more]
                nearest[left], length[left], _ = _share_out(normals[more], points[more], excess[more], _bisected)
        return nearest, length

    @staticmethod
    def _fill_top(
        sizes: Tensor, index: Tensor, normals: Tensor, points: Tensor, excess: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the heaviest pixels, in falling order: nearest points, distances, and which rows need more pixels."""
        moved, length, threshold = _share_out(normals.gather(1, index), points.gather(1, index), excess, _counted)
        # If the least of these pixels must move, then more of the others may have to.
        short = threshold <= sizes[:, -1] if sizes.shape[1] < points.shape[1] else torch.zeros_like(excess).bool()
        return points.scatter(1, index, moved), length, short.nonzero()[:, 0]


def _share_out(
    normals: Tensor, points: Tensor, excess: Tensor, find: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest points in L1, their distances, and the weight of the pixels that share, both float64 (n,)."""
    sides = torch.where(excess >= 0, 1.0, -1.0).double()[:, None]
    origin = points.double()
    rooms = torch.where(sides * normals < 0, 1 - origin, origin)
    sizes, wanted = normals.abs(), excess.abs()[:, None]
    parts = sizes * rooms
    threshold = find(sizes, parts, wanted)
    above, equal = sizes > threshold, sizes == threshold
    shared = (parts * equal).sum(dim=1, keepdim=True)
    share = (wanted - (parts * above).sum(dim=1, keepdim=True)) / torch.where(shared > 0, shared, torch.inf)
    moves = rooms * (above + equal * share.clamp(0, 1))
    nearest = (origin - sides * normals.sign() * moves).clamp_(0, 1).to(points.dtype)
    return nearest, moves.sum(dim=1), threshold[:, 0]


def _counted(sizes: Tensor, parts: Tensor, wanted: Tensor) -> Tensor:
    """Of weights in falling order, the one at which the sum of the parts reaches `wanted`, or the last; (n, 1)."""
    before = (parts.cumsum(dim=1) < wanted).sum(dim=1, keepdim=True)
    return sizes.gather(1, before.clamp_(max=sizes.shape[1] - 1))


def _bisected(sizes: Tensor, parts: Tensor, wanted: Tensor) -> Tensor:
    """The smallest weight, or 0, above which the parts add up to `wanted` at most; (n, 1).

    Floats from 0 up are ordered as the integers of the same bits: 32 or 64 halvings isolate a single float.
    """
    whole = torch.int32 if sizes.dtype == torch.float32 else torch.int64
    high = sizes.amax(dim=1, keepdim=True).view(whole)
    low = torch.zeros_like(high)
    for _ in range(8 * sizes.element_size()):
        middle = low + (high - low) // 2
        enough = (parts * (sizes > middle.view(sizes.dtype))).sum(dim=1, keepdim=True) <= wanted
        high, low = torch.where(enough, middle, high), torch.where(enough, low, middle + 1)
        low = torch.minimum(low, high)
    return high.view(sizes.dtype)


def lengths(norm: Norm, changes: Tensor) -> Tensor:
    """The norms of rows (n, d), float64 (n,); overwrites them."""
    if norm == "Linf":
        return changes.abs_().amax(dim=1).double()
    return sums(changes.abs_()) if norm == "L1" else sums(changes.square_()).sqrt_()


def sums(terms: Tensor) -> Tensor:
    """Sums of rows in float64, (n,); the CPU adds float32 terms in groups of up to 16 first, which is twice as fast."""
    group = math.gcd(terms.shape[1], 16)
    if terms.device.type == "cpu" and terms.dtype == torch.float32 and group > 1:
        terms = terms.reshape(len(terms), group, terms.shape[1] // group).sum(dim=1)
    return terms.sum(dim=1, dtype=torch.float64)
