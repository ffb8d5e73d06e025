"""The proposals of the Square attack for L1."""

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._pool import Jobs, State
from robust_attacks._square_bumps import tiles
from robust_attacks._square_change import Change, Write
from robust_attacks._square_pairs import Pairs, moved, radii, total
from robust_attacks._square_windows import Schedule

_INWARDS = 1 - 1e-6
_SOLVED = 1e-9  # relative error of the L1 norm at which the search for the cut ends
_MOST_STEPS = 30  # on the CPU a dozen are enough


class Bumps1:
    """As for L2, with L1 norms and C times the length, then projected: all is cut down by the same amount.

    The projection makes the perturbation sparse, a few dozen pixels. Where the host may look, their indices are kept in
    `support` (n, d), of which the first `filled` count, and a proposal costs no pass over the images; elsewhere all
    pixels are taken, since how many there are would have to be asked of the device.
    """

    def __init__(self, schedule: Schedule, jobs: Jobs, seed: int) -> None:
        self._pairs = Pairs(1, schedule, jobs, seed)

    def start(self, jobs: Jobs) -> State:
        """Tiles of bumps, projected onto ball and box."""
        images = jobs.images.contiguous()
        points = jobs.threat.projector(images)(images + tiles(images, jobs.random, 1)).contiguous()
        size = total((points.double() - images).abs_().flatten(1))[:, 0]
        state = {"points": points, "images": images, "eps": radii(jobs), "size": size, "proposed": size.clone()}
        if _host.can_look(images):
            state["support"] = torch.zeros(points.flatten(1).shape, dtype=torch.int64, device=images.device)
            state["filled"] = torch.zeros_like(jobs.labels)
            _find_support(state, torch.arange(len(images), device=images.device))
        return state | self._pairs.start(jobs)

    def propose(self, state: State, wanted: Tensor | None, least: int, most: int) -> Change:
        """Write the next proposals of the wanted jobs into their points."""
        pair = self._pairs.next(state, wanted, least, most)
        points, images = state["points"].flatten(1), state["images"].flatten(1)
        support, counted = _support(state)
        few, half = support.shape[1], pair.first.shape[1]
        places = torch.cat((support, pair.first, pair.second), dim=1)
        clean, old = images.gather(1, places), points.gather(1, places)
        clean1, clean2 = clean[:, few : few + half], clean[:, few + half :]
        points.scatter_(1, pair.first, clean1)  # so that what the windows share counts once
        left2 = points.gather(1, pair.second)
        points.scatter_(1, pair.second, clean2)
        outside = points.gather(1, support)
        origin = clean[:, : few + half].double()
        offset1 = (old[:, few : few + half] - origin[:, few:]).view_as(pair.pattern)
        size1 = _sizes(offset1, pair.shares)
        size2 = _sizes((left2.double() - clean2).view_as(pair.pattern), pair.shares)
        new = offset1.div_(size1 + 1e-12).add_(pair.pattern)
        free = (state["eps"] - state["size"]).clamp_(min=0)[:, None, None]
        new *= (free + (size1 + size2) * new.shape[1]) / _sizes(new, pair.shares).clamp_(min=1e-300)

        offsets = torch.cat((outside - origin[:, :few], new.view(len(new), -1)), dim=1)
        weights = torch.ones_like(new) if pair.shares is None else pair.shares.expand_as(new)
        weights = torch.cat((counted, weights.reshape(len(new), -1)), dim=1)
        offsets = _project(offsets, origin, weights, state["eps"][:, None] * _INWARDS)
        now = moved(clean[:, : few + half], origin, offsets)
        state["proposed"] = total((now - origin).abs_().mul_(weights))[:, 0]
        change = Change(
            (
                Write(pair.second, old[:, few + half :], clean2),
                Write(support, old[:, :few], now[:, :few]),
                Write(pair.first, old[:, few : few + half], now[:, few:]),
            ),
            wanted,
        )
        change.apply(points, wanted)
        return change

    def settle(self, state: State, accepted: Tensor) -> None:
        """Remember sizes and pixels of the accepted proposals."""
        state["size"] = torch.where(accepted, state["proposed"], state["size"])
        if _host.can_look(accepted):
            rows = accepted.nonzero()[:, 0]
            if len(rows):
                _find_support(state, rows)


def _sizes(offsets: Tensor, shares: Tensor | None) -> Tensor:
    """L1 norms per channel, (n, C, 1), of offsets (n, C, L)."""
    sizes = offsets.abs()
    return total(sizes if shares is None else sizes.mul_(shares))


def _support(state: State) -> tuple[Tensor, Tensor]:
    """Indices (n, m) among which are all pixels that differ from the image, and which entries count, float64 (n, m)."""
    points = state["points"].flatten(1)
    if not _host.can_look(points):
        support = torch.arange(points.shape[1], device=points.device).expand(points.shape)
        return support, torch.ones_like(points, dtype=torch.float64)
    most = max(int(state["filled"].max()), 1)
    return state["support"][:, :most], (torch.arange(most, device=points.device) < state["filled"][:, None]).double()


def _find_support(state: State, rows: Tensor) -> None:
    """List the pixels of some jobs, int64 (k,), that differ from the image anew; where the host may look."""
    differs = state["points"][rows].flatten(1) != state["images"][rows].flatten(1)
    row, pixel = differs.nonzero().unbind(1)
    filled = differs.sum(dim=1)
    place = torch.arange(len(row), device=row.device) - (filled.cumsum(0) - filled)[row]
    state["support"][rows[row], place] = pixel
    state["filled"][rows] = filled


def _project(offsets: Tensor, clean: Tensor, weights: Tensor, aim: Tensor) -> Tensor:
    """The L1 projection of `projections.project_l1`, of the entries that may be not zero: offsets (n, m), float64."""
    sizes = offsets.abs()
    rooms = torch.where(offsets > 0, 1 - clean, clean)
    cut = _cut(sizes * weights, rooms, aim)
    return torch.minimum(sizes.sub_(cut).clamp_(min=0), rooms).copysign_(offsets)


def _cut(sizes: Tensor, rooms: Tensor, aim: Tensor) -> Tensor:
    """By how much all sizes (n, m) are cut down for their sum to be at most `aim` (n, 1): Newton within a bracket."""
    low, high = torch.zeros_like(aim), sizes.amax(dim=1, keepdim=True)
    cut, near, done = low, _SOLVED * aim, torch.zeros_like(aim, dtype=torch.bool)
    for _ in range(_MOST_STEPS):
        left = sizes - cut
        kept = torch.minimum(left.clamp(min=0), rooms)
        excess = total(kept) - aim
        over = excess > 0
        low, high = torch.where(over, cut, low), torch.where(over, high, cut)
        done = done | (excess.abs() <= near) | (high <= low)
        if _host.can_look(done) and bool(done.all()):
            break
        slope = (kept == left).sum(dim=1, keepdim=True, dtype=torch.float64)  # counts zeros too, while nothing is cut
        step = torch.addcdiv(cut, excess, slope)
        step = torch.where((step > low) & (step < high), step, torch.lerp(low, high, 0.5))
        cut = torch.where(done, cut, step)
    return torch.where(done, cut, high)
