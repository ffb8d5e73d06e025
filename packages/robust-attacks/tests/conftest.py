"""Models whose worst case is known, and hypothesis without a clock."""

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

settings.register_profile("steady", deadline=None, max_examples=50, derandomize=True, print_blob=False)
settings.load_profile("steady")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


class Linear(nn.Module):
    """Logits -f, f and two far below, with f = <w, x> + b: class 1 where f > 0, at distance |f| / ||w||_q from f = 0.

    Every row is computed in float64 from its own numbers, so nothing depends on the batch.
    """

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.bias = bias

    def value(self, images: Tensor) -> Tensor:
        return (images.double() * self.weight).sum(dim=(1, 2, 3)) + self.bias

    def forward(self, images: Tensor) -> Tensor:
        value = self.value(images)
        return torch.stack((-value, value, torch.full_like(value, -1e3), torch.full_like(value, -2e3)), dim=1)


class Rows(nn.Module):
    """A bumpy model of three classes whose arithmetic is done pixel by pixel and row by row, in float64."""

    def __init__(self, shape: tuple[int, int, int], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((3, *shape), generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        bumps = images.double() + 0.3 * torch.sin(7 * images.double())
        return torch.stack([(bumps * weight).sum(dim=(1, 2, 3)) for weight in self.weight], dim=1)


@pytest.fixture(scope="session")
def linear() -> type[Linear]:
    return Linear


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    return Rows
