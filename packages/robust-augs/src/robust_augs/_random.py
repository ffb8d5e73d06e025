"""Random numbers, drawn where the generator lives and brought to a device.

Without a generator they come from torch's default one of that device. `torch.distributions` takes no generator; it
samples with `torch._standard_gamma`, which does take one, and so do the functions here.
"""

import torch
from torch import Tensor

Shape = tuple[int, ...]


def uniform(shape: Shape, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw from U[0, 1)."""
    return torch.rand(shape, generator=generator, device=_home(generator, device)).to(device)


def normal(shape: Shape, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw from N(0, 1)."""
    return torch.randn(shape, generator=generator, device=_home(generator, device)).to(device)


def permutation(count: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw an order of 0..count-1, as int64."""
    return torch.randperm(count, generator=generator, device=_home(generator, device)).to(device)


def integers(
    shape: Shape, low: int, high: int, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Draw whole numbers, uniform in {low, ..., high}, as int64."""
    return torch.randint(low, high + 1, shape, generator=generator, device=_home(generator, device)).to(device)


def gamma(shape: Shape, alpha: float, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw from Gamma(alpha, 1) in float64: in float32 the draws for a small alpha would often be too small to tell."""
    concentration = torch.full(shape, alpha, dtype=torch.float64, device=_home(generator, device))
    return torch._standard_gamma(concentration, generator).to(device)


def beta(shape: Shape, a: float, b: float, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw from Beta(a, b) as float32."""
    first, second = gamma(shape, a, generator, device), gamma(shape, b, generator, device)
    return (first / (first + second)).float()


def dirichlet(shape: Shape, alpha: float, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw from the symmetric Dirichlet(alpha, ..., alpha) as float32; the last dimension sums to 1."""
    draws = gamma(shape, alpha, generator, device)
    return (draws / draws.sum(dim=-1, keepdim=True)).float()


def _home(generator: torch.Generator | None, device: torch.device | str) -> torch.device | str:
    return device if generator is None else generator.device
