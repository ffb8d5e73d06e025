"""Where numbers of a tensor can be read without waiting for a device, and what is done more cheaply there."""

import math

import torch
from torch import Tensor


def can_look(tensor: Tensor) -> bool:
    """Whether the host may look at numbers of the tensor: on the CPU it may, so loops can end early there.

    Anywhere else a look would make the host wait for all that the device still has to do. There, loops make a fixed
    number of passes, and what need not be computed is computed and masked.
    """
    return tensor.device.type == "cpu"


def surely_finite(numbers: Tensor) -> bool:
    """Whether the host can tell by one look that all numbers are finite; the sum of finite numbers may overflow."""
    return can_look(numbers) and math.isfinite(float(numbers.detach().sum()))


def overwrite(rows: Tensor, old: Tensor, new: Tensor) -> None:
    """`old[rows] = new[rows]` for a boolean mask (n,); on the CPU only these rows are touched."""
    if can_look(rows):
        some = rows.nonzero()[:, 0]
        if len(some):
            old[some] = new[some]
    else:
        torch.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old, out=old)
