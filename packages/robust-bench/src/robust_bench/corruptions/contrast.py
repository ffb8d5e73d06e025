"""Contrast: every channel pulled towards its mean."""

import torch
from torch import Tensor

from robust_bench.corruptions.draws import Draws


def contrast(images: Tensor, factor: float, _draws: Draws) -> Tensor:
    """Pull every channel towards its spatial mean m: (x - m) factor + m."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, factor)


def contrast_levels(levels: Tensor, factor: float, _draws: Draws) -> Tensor:
    """Do the same to uint8 images, through a table of the 256 grey levels per channel in float64.

    The published bytes come from float64 arithmetic and truncation, which float32 does not reproduce everywhere.
    """
    count, channels, height, width = levels.shape
    rows = levels.reshape(count * channels, height * width)
    mean = rows.sum(dim=1, dtype=torch.int64, keepdim=True).double() / (255.0 * height * width)
    steps = torch.arange(256, dtype=torch.float64, device=levels.device) / 255.0
    tables = ((steps - mean) * factor + mean).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
    offsets = torch.arange(len(rows), dtype=torch.int32, device=levels.device)[:, None] * 256
    index = rows.to(torch.int32).add_(offsets)
    return tables.view(-1).index_select(0, index.view(-1)).view(levels.shape)
