"""Models whose worst case is known, stored ones, images for them, and hypothesis without a clock."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

settings.register_profile("steady", deadline=None, max_examples=50, derandomize=True, print_blob=False)
settings.load_profile("steady")

PLACES = [folder / "shared" / "data" / "parity" for folder in Path(__file__).resolve().parents]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        with warnings.catch_warnings():  # torch says once, to whoever asks first, that the debug mode is a prototype
            warnings.simplefilter("ignore", UserWarning)
            torch.cuda.set_sync_debug_mode("default")


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


class Counting(nn.Module):
    """A model that notes how many images each of its forward and backward passes had."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards: list[int] = []
        self.backwards: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.forwards.append(len(images))
        logits = self.model(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.backwards.append(len(gradient)))
        return logits


def images_and_labels(count: int, seed: int = 0, shape: tuple[int, int, int] = (2, 4, 4)) -> tuple[Tensor, Tensor]:
    """Images of which some pixels are black or white, and labels of three classes."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.2 * torch.rand((count, *shape), generator=generator) - 0.1).clamp(0, 1)
    return images, torch.randint(3, (count,), generator=generator)


class Standardise(nn.Module):
    """`(x - mean) / std` per channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def stored_network(name: str) -> tuple[nn.Module, Tensor, Tensor, dict[str, Any]]:
    """A network of the parity data, its images and labels, and what the published AutoAttack did to them.

    The names are `mnist_cnn_a_adv` and `cifar_cnn_a_adv`.
    """
    numpy = pytest.importorskip("numpy", reason="the parity data are .npz files")
    folder = next((place / name for place in PLACES if (place / name).is_dir()), None)
    if folder is None:
        pytest.skip(f"the parity data are not there: ../shared/data/parity/{name} beside the repository")
    channels, features = {"mnist_cnn_a_adv": (1, 1568), "cifar_cnn_a_adv": (3, 2048)}[name]
    model = nn.Sequential(
        nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    if name == "cifar_cnn_a_adv":
        mean, std = ([value / 255 for value in row] for row in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
        model = nn.Sequential(Standardise(mean, std), model)
    with numpy.load(folder / "images_200.npz") as arrays:
        images, labels = torch.from_numpy(arrays["x"]).float() / 255, torch.from_numpy(arrays["y"])
    return model.eval(), images, labels, json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="session")
def linear() -> type[Linear]:
    return Linear


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    return Rows


@pytest.fixture(scope="session")
def counting() -> type[Counting]:
    return Counting


@pytest.fixture(scope="session")
def batch() -> Callable[..., tuple[Tensor, Tensor]]:
    return images_and_labels


@pytest.fixture(scope="session")
def stored() -> Callable[[str], tuple[nn.Module, Tensor, Tensor, dict[str, Any]]]:
    return stored_network
