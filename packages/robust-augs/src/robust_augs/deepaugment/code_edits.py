"""The edits of the code of a compressive autoencoder: eight before it is made binary, one after."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from robust_augs._random import integers, uniform
from robust_augs.deepaugment.kernels import random_mask, random_scale, random_signs, uniform_like
from robust_augs.deepaugment.layers import draw_below, draw_some

Edit = Callable[[Tensor, torch.Generator | None], Tensor]


def zero_positions(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Set all channels to zero at a random 20% of the positions."""
    return code * random_mask(code[:, :1], generator, kept=0.8)


def negate_positions(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Negate all channels at a random 10% of the positions."""
    return code * random_signs(code[:, :1], generator, negative=0.1)


def permute_channels(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Permute the first ten channels."""
    order = torch.arange(code.shape[1])
    order[:10] = draw_some(10, min(10, len(order)), generator)
    return code[:, order.to(code.device)]


def flip_five(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Reverse rows, columns or both in five channels."""
    chosen = draw_some(5, code.shape[1], generator).to(code.device)
    flipped = code.clone()
    flipped[:, chosen] = code[:, chosen].flip(_axes(generator))
    return flipped


def flip_all(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Reverse rows, columns or both in all channels."""
    return code.flip(_axes(generator))


def convolve_noise(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Convolve with the identity plus noise U(-0.1, 0.1), 3x3 and over all channels."""
    kernels = _identity(code)
    noise = 0.2 * (uniform_like(kernels, generator) - 0.5)
    return F.conv2d(code, kernels + noise, padding=1)


def add_channels(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Add to every channel, with probability 1/2, a random channel moved by up to a pixel each way."""
    channels, kernels = code.shape[1], _identity(code)
    added = (uniform((channels,), generator, code.device) < 0.5).nonzero().squeeze(1)
    other = integers((len(added),), 0, channels - 1, generator, code.device)
    row, column = integers((2, len(added)), 0, 2, generator, code.device)
    kernels[added, other, row, column] = 1
    return F.conv2d(code, kernels, padding=1)


def shift_channels(code: Tensor, generator: torch.Generator | None) -> Tensor:
    """Move the channels by up to a pixel each way: the first at random, each next like the last, or anew in 20%."""
    channels = code.shape[1]
    anew = uniform((channels,), generator, "cpu") < 0.2
    anew[0] = True
    source = torch.where(anew, torch.arange(channels), 0).cummax(dim=0).values
    place = integers((channels,), 0, 8, generator, "cpu")[source]
    deltas = F.one_hot(place, 9).view(channels, 1, 3, 3).to(code)
    return F.conv2d(code, deltas, padding=1, groups=channels)


def scale_bits(bits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Multiply by 3 + 2 u U(-1, 1)."""
    return 2 * bits + bits * random_scale(torch.ones_like(bits), generator, low=-1, high=1)


def _identity(code: Tensor) -> Tensor:
    """Kernels (C, C, 3, 3) of the convolution that leaves `code` as it is."""
    channels = code.shape[1]
    kernels = code.new_zeros(channels, channels, 3, 3)
    kernels[:, :, 1, 1] = torch.eye(channels)
    return kernels


def _axes(generator: torch.Generator | None) -> tuple[int, ...]:
    return ((2,), (3,), (2, 3))[draw_below(3, generator)]


CODE_EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        zero_positions,
        negate_positions,
        permute_channels,
        flip_five,
        flip_all,
        convolve_noise,
        add_channels,
        shift_channels,
    )
}
