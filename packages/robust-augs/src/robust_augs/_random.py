"""Distributions that torch draws from a generator only in its lowest layer.

`torch.distributions` takes no generator. It samples with `torch._standard_gamma`, which does take one; so do these
functions. Like `uniform` of `_images.py`, each draws where the generator lives and brings the numbers to `device`.
"""

import torch
from torch import Tensor


def integers(
    shape: tuple[int, ...], low: int, high: int, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Draw whole numbers, uniform in {low, ..., high}, as int64."""
    home = generator.device if generator else device
    return torch.randint(low, high + 1, shape, generator=generator, device=home).to(device)


def gamma(
    shape: tuple[int, ...], alpha: float, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Draw from Gamma(alpha, 1) in float64: in float32 the draws for a small alpha would often be too small to tell."""
    home = generator.device if generator else device
    concentration = torch.full(shape, alpha, dtype=torch.float64, device=home)
    return torch._standard_gamma(concentration, generator).to(device)


def beta(
    shape: tuple[int, ...], a: float, b: float, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Draw from Beta(a, b) as float32."""
    first, second = gamma(shape, a, generator, device), gamma(shape, b, generator, device)
    return (first / (first + second)).float()


def dirichlet(
    shape: tuple[int, ...], alpha: float, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Draw from the symmetric Dirichlet(alpha, ..., alpha) as float32; the last dimension sums to 1."""
    draws = gamma(shape, alpha, generator, device)
    return (draws / draws.sum(dim=-1, keepdim=True)).float()
