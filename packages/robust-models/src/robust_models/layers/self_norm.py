"""SelfNorm: every channel weighs its own mean and deviation."""

import torch
from torch import Tensor, nn


class SelfNorm(nn.Module):
    """Scale every channel by a gate that a network of two weights computes from its mean and deviation.

    Tang et al., "CrossNorm and SelfNorm for Generalization under Distribution Shifts", ICCV 2021, arXiv:2102.02811,
    section 3.2: with mean m and deviation s over the pixels of a channel, g = sigmoid(batch norm(w . (m, s))) and
    y = g x. With two gates the mean has its own, f: y = g (x - m) + f m. A map of a single pixel has deviation 0.

    Args:
        channels: C.
        two_gates: gate the mean on its own.
    """

    eps = 1e-12

    def __init__(self, channels: int, two_gates: bool = False) -> None:
        super().__init__()
        self.g_fc = nn.Conv1d(channels, channels, 2, groups=channels, bias=False)
        self.g_bn = nn.BatchNorm1d(channels)
        self.two_gates = two_gates
        if two_gates:
            self.f_fc = nn.Conv1d(channels, channels, 2, groups=channels, bias=False)
            self.f_bn = nn.BatchNorm1d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W) of the same shape; the statistics are computed in float32 at least."""
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        single = maps.shape[-1] * maps.shape[-2] == 1
        variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0 if single else 1)
        statistics = torch.stack([mean, (variance + self.eps).sqrt()], dim=2).to(maps.dtype)
        scale: Tensor = self.g_bn(self.g_fc(statistics)).sigmoid()[..., None].to(maps.dtype)
        if not self.two_gates:
            return maps * scale
        shift: Tensor = self.f_bn(self.f_fc(statistics)).sigmoid()[..., None].to(maps.dtype)
        return maps * scale + (shift - scale) * mean[..., None, None].to(maps.dtype)
