"""The operations of AugMix that change each level on its own: autocontrast, equalize, posterize and solarize.

Each takes images (N, C, H, W) on the scale 0..255. On uint8 they equal Pillow's functions of the same names, byte for
byte; on floats of the same scale they follow the same formulas without rounding.
"""

import torch
from torch import Tensor

from robust_augs._levels import per_image


def autocontrast(levels: Tensor) -> Tensor:
    """Stretch each channel to the full range: (v - lo) 255 / (hi - lo); a channel of one level stays."""
    low, high = levels.amin(dim=(2, 3), keepdim=True), levels.amax(dim=(2, 3), keepdim=True)
    if levels.is_floating_point():
        return torch.where(high > low, (levels - low) / (high - low) * 255, levels)
    # Pillow computes in double precision and truncates, so only its very order of operations gives its bytes.
    low, high = low.flatten(2).double(), high.flatten(2).double()
    ramp = torch.arange(256, dtype=torch.float64, device=levels.device)
    scale = torch.full_like(low, 255) / (high - low)  # torch would take 255 / x for 255 times the inverse of x
    table = torch.where(high > low, ramp * scale - low * scale, ramp).clamp(0, 255)
    return _look_up(table.to(torch.uint8), _entries(levels))


def equalize(levels: Tensor) -> Tensor:
    """Spread the levels of each channel so that all are about equally frequent.

    With the histogram h, its last non-zero bin, `last`, and step = (sum h - last) // 255, level v becomes
    (step // 2 + sum of h below v) // step; a channel with step 0 stays. Floats are counted and looked up at the
    nearest level, and the last division is exact.
    """
    exact = levels.is_floating_point()
    entries = _entries(levels.round() if exact else levels)
    histogram = _count(entries)
    highest = levels.amax(dim=(2, 3)).round().long()[..., None]
    step = (histogram.sum(dim=2, keepdim=True) - histogram.gather(2, highest)) // 255
    below = histogram.cumsum(dim=2) - histogram + step // 2
    table = below.div(step.clamp_min(1), rounding_mode=None if exact else "floor").clamp(0, 255)
    if exact:
        return torch.where(step[..., None] > 0, _look_up(table.to(levels.dtype), entries), levels)
    ramp = torch.arange(256, device=levels.device)
    return _look_up(torch.where(step > 0, table, ramp).to(torch.uint8), entries)


def posterize(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (N,) of 8 and clear the others; 0 bits give black, which Pillow refuses."""
    step = per_image(2 ** (8 - bits), levels)
    if levels.is_floating_point():
        return (levels / step).floor() * step
    return levels & (256 - step).to(torch.uint8)


def solarize(levels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the levels that are not below `threshold` (N,), in 0..255."""
    limit = per_image(threshold, levels).to(levels.dtype)
    if levels.is_floating_point():
        return torch.where(levels < limit, levels, 255 - levels)
    # On a CPU, torch compares bytes a dozen times more slowly than it subtracts them.
    below = (limit - levels.minimum(limit)).clamp_(max=1)
    return below.mul_(255).bitwise_xor_(levels).bitwise_not_()


def _entries(levels: Tensor) -> Tensor:
    """Where whole levels (N, C, H, W) stand in one table of 256 entries per image and channel, one after the other."""
    count, channels = levels.shape[:2]
    first = torch.arange(count * channels, dtype=torch.int32, device=levels.device) * 256
    return levels.int() + first.view(count, channels, 1, 1)


def _count(entries: Tensor) -> Tensor:
    """Count the entries per image and channel: (N, C, 256)."""
    count, channels = entries.shape[:2]
    size = count * channels * 256
    if entries.device.type == "cpu":
        histogram = entries.flatten().bincount(minlength=size)
    else:  # where bincount would make the host wait for the device
        ones = torch.ones((), dtype=torch.int64, device=entries.device).expand(entries.numel())
        histogram = torch.zeros(size, dtype=torch.int64, device=entries.device).index_add_(0, entries.flatten(), ones)
    return histogram.view(count, channels, 256)


def _look_up(table: Tensor, entries: Tensor) -> Tensor:
    """The values of a table (N, C, 256) at the entries (N, C, H, W)."""
    return table.flatten().index_select(0, entries.flatten()).view_as(entries)
