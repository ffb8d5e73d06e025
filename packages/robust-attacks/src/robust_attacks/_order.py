"""The k-th largest number of every row, without sorting all of them."""

import torch
from torch import Tensor

from robust_attacks import _host

_FEW = 1 / 4  # share of a row that is sorted sooner than it is counted 31 times
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def kth_largest(values: Tensor, rank: Tensor) -> Tensor:
    """The `rank`-th largest of the numbers of every row, with a rank of its own for each.

    Where the host may look and all ranks are small, only so many are sorted. Otherwise: non-negative floats are ordered
    like the integers of the same bits, so that halving the range of these isolates one number exactly, in 31 passes
    (float64: 63) that only count. No row waits for another, nor the host for the device.

    Args:
        values: (n, d), >= 0 and finite, float32 or float64, d < 2^24.
        rank: int64 (n,), 1 .. d.
    """
    if values.shape[1] >= 2**24:
        raise ValueError(
            f"images of {values.shape[1]} numbers are too large for L1, which counts up to 2^24: resize them"
        )
    if _host.can_look(values) and len(values):
        most = int(rank.max())
        if most <= _FEW * values.shape[1]:
            return values.topk(most, dim=1).values.gather(1, rank[:, None] - 1)[:, 0]
    integers = _INTEGERS[values.dtype]
    low = torch.zeros(len(values), 1, dtype=integers, device=values.device)  # so many are as large as this, or more
    high = values.amax(dim=1, keepdim=True).view(integers) + 1  # fewer are
    wanted = rank[:, None]
    at_least = torch.empty_like(values)
    for _ in range(31 if integers == torch.int32 else 63):
        middle = low + (high - low) // 2
        enough = torch.ge(values, middle.view(values.dtype), out=at_least).sum(dim=1, keepdim=True) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low.view(values.dtype)[:, 0]
