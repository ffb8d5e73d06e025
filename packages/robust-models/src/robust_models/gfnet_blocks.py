"""What global filter networks are made of: filters in the frequency domain, and blocks of filter and MLP."""

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

Grid = tuple[int, int]


class GlobalFilter(nn.Module):
    """Convolve the token map circularly with one learnt filter per channel, as a product in the frequency domain.

    Rao et al., "Global Filter Networks for Image Classification", NeurIPS 2021, arXiv:2107.00645, section 3.2. The
    transform runs in float32 at least, whatever the tokens and autocast say.

    Args:
        dim: channels.
        grid: rows and columns of the token map.
    """

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.complex_weight = nn.Parameter(0.02 * torch.randn(grid[0], grid[1] // 2 + 1, dim, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Filter `tokens` (N, rows * columns, dim); the same shape and type come back."""
        exact = torch.promote_types(tokens.dtype, torch.float32)
        # contiguous: a model in channels_last stores this four-dimensional weight with its last axis apart
        weight = torch.view_as_complex(self.complex_weight.to(exact).contiguous())
        # scaled once, on the way back: the same as the published orthonormal pair, and faster
        maps = tokens.to(exact).reshape(-1, *self.grid, tokens.shape[-1])
        spectrum = torch.fft.rfft2(maps, dim=(1, 2))
        filtered: Tensor = torch.fft.irfft2(spectrum * weight, s=self.grid, dim=(1, 2))
        return filtered.flatten(1, 2).to(tokens.dtype)

    def set_grid(self, grid: Grid) -> None:
        """Filter maps of another size from now on, see `resample_filter`."""
        weight = resample_filter(self.complex_weight.detach(), self.grid, grid)
        self.complex_weight = nn.Parameter(weight, requires_grad=self.complex_weight.requires_grad)
        self.grid = grid

    def extra_repr(self) -> str:
        """Say the size in `repr`."""
        return f"dim={self.complex_weight.shape[2]}, grid={self.grid}"


def resample_filter(weight: Tensor, old: Grid, new: Grid) -> Tensor:
    """Take a global filter to another grid by bilinear interpolation of its spectrum, at the new frequencies.

    The weight samples a continuous spectrum (arXiv:2107.00645, section 3.2), which is periodic and, because the filter
    is real, conjugate symmetric. Bin k of n lies at frequency k / n, so a bin keeps its frequency, not its relative
    place in the array: the mean of a map stays filtered by the same number, and halving a grid picks every second bin.

    Args:
        weight: (h, w // 2 + 1, dim, 2), real and imaginary parts last.
        old: (h, w).
        new: the grid that is wanted.
    """
    if old == new:
        return weight
    kernel = torch.fft.irfft2(torch.view_as_complex(weight.double().contiguous()), s=old, dim=(0, 1))
    spectrum = torch.fft.fft2(kernel, dim=(0, 1))  # negative frequencies of the columns, too
    for axis, count in enumerate((new[0], new[1] // 2 + 1)):
        place = torch.arange(count, dtype=torch.float64, device=weight.device) * old[axis] / new[axis]
        low = place.floor().long()
        fraction = (place - low).reshape(-1, *[1] * (2 - axis))
        lower, upper = (spectrum.index_select(axis, each % old[axis]) for each in (low, low + 1))
        spectrum = lower + fraction * (upper - lower)
    return torch.view_as_real(spectrum).to(weight.dtype)


class Block(nn.Module):
    """x + DropPath(gamma * MLP(LN(filter(LN(x))))): one residual around filter and MLP together.

    Args:
        dim: channels.
        grid: rows and columns of the token map.
        drop_path: probability of leaving the branch out in training.
        gamma: first value of the layer scale; None means none.
    """

    def __init__(self, dim: int, grid: Grid, drop_path: float, gamma: float | None) -> None:
        super().__init__()
        self.gamma = None if gamma is None else nn.Parameter(torch.full((dim,), gamma))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.filter = GlobalFilter(dim, grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Update `tokens` (N, rows * columns, dim)."""
        branch = self.mlp(self.norm2(self.filter(self.norm1(tokens))))
        updated: Tensor = tokens + self.drop_path(branch if self.gamma is None else self.gamma * branch)
        return updated
