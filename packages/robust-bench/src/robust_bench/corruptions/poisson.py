"""Shot noise: the photons that a pixel counts are Poisson distributed.

A uniform number becomes a count by the alias method (Walker, "An efficient method for generating discrete random
variables with general distributions", ACM TOMS 1977): the 65,536 steps of the uniform number are shared out among the
counts, as many to each as its probability asks for, in such a way that one look-up and one comparison find the count.
There is a table of a few dozen columns for every grey level, small enough for a CPU's cache. A count of `photons` or
more is white, so the tables end there.
"""

import functools

import torch
from torch import Tensor

from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import LEVELS
from robust_bench.corruptions.levels import truncate

# An entry of a table holds a bound in its upper bits, what holds below the bound, and what holds from there on.
_FIELD = 10
_FEWEST_COLUMNS = 64


def shot_noise_levels(levels: Tensor, photons: int, draws: Draws) -> Tensor:
    """Let uint8 images be counted: Poisson(photons x) / photons, truncated to uint8.

    Args:
        levels: (N, C, H, W), uint8.
        photons: expected count of a white pixel.
        draws: "uniform", numbers in [0, 1), or "counts", Poisson counts made elsewhere; each (N, C, H, W).
    """
    if "counts" in draws.fields:
        return truncate(draws.field("counts", tuple(levels.shape)).double() / photons)
    return _look_up(_table(photons, levels.device, as_levels=True), levels, draws).to(torch.uint8)


def shot_noise(images: Tensor, photons: int, draws: Draws) -> Tensor:
    """Do the same to float images, without truncation; their expected counts are those of the nearest grey level."""
    if "counts" in draws.fields:
        counts = draws.field("counts", tuple(images.shape))
    else:
        nearest = images.mul(255.0).round_()
        counts = _look_up(_table(photons, images.device, as_levels=False), nearest, draws)
        counts.bitwise_and_((1 << _FIELD) - 1)
    return counts.to(images.dtype) / photons


def _look_up(table: Tensor, levels: Tensor, draws: Draws) -> Tensor:
    """Find what every grey level becomes, in the lower bits of int32 numbers."""
    columns = table.shape[1]
    steps = LEVELS // columns
    place = draws.field("uniform", tuple(levels.shape)).mul(LEVELS).to(torch.int32)
    index = levels.to(torch.int32).mul_(columns).add_(place >> (steps.bit_length() - 1))
    entry = table.view(-1).index_select(0, index.view(-1)).view(levels.shape)
    below = place.bitwise_and_(steps - 1).sub_(entry >> (2 * _FIELD)).bitwise_right_shift_(31)  # -1 below the bound
    return entry.bitwise_right_shift_(below.bitwise_and_(_FIELD))


@functools.lru_cache(maxsize=32)
def _table(photons: int, device: torch.device, *, as_levels: bool) -> Tensor:
    """Pack the tables of all grey levels, int32 (256, columns), with counts or the grey levels that they make."""
    columns = max(_FEWEST_COLUMNS, 1 << photons.bit_length())
    counts = torch.arange(columns, dtype=torch.float64)
    rates = torch.arange(256, dtype=torch.float64)[:, None] * (photons / 255.0)
    at_most: Tensor = torch.special.gammaincc(counts + 1.0, rates)  # the Poisson distribution function
    at_most[:, photons:] = 1.0
    ends = at_most.mul_(LEVELS).round_().to(torch.int64)
    shares = ends.diff(dim=1, prepend=ends.new_zeros(256, 1))
    bounds, others = torch.tensor([_share_out(row) for row in shares.tolist()]).unbind(1)
    values = truncate(counts / photons).to(torch.int64) if as_levels else counts.to(torch.int64)
    packed = (bounds << (2 * _FIELD)) | (values << _FIELD) | values[others]
    return packed.to(torch.int32).to(device)


def _share_out(shares: list[int]) -> tuple[list[int], list[int]]:
    """Fill as many columns of equal height as there are shares with at most two of them each.

    Returns:
        per column the height that its own share reaches, and whose share lies above.
    """
    shares, height = list(shares), sum(shares) // len(shares)
    bounds, others = [height] * len(shares), list(range(len(shares)))
    low = [column for column, share in enumerate(shares) if share < height]
    high = [column for column, share in enumerate(shares) if share > height]
    while high:
        column, giver = low.pop(), high[-1]
        bounds[column], others[column] = shares[column], giver
        shares[giver] -= height - shares[column]
        if shares[giver] <= height:
            high.pop()
        if shares[giver] < height:
            low.append(giver)
    return bounds, others
