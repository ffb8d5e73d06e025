"""The trained models and images of ../shared/data/parity, which lie beside the repository, for the benchmarks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

PARITY = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "parity"


@dataclass(frozen=True)
class Stored:
    """A model, the images that it was attacked on, and what the published AutoAttack did to them."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    published: dict[str, Any]


def stored(name: str, count: int | None = None) -> Stored:
    """One of `cifar_cnn_a_adv`, `mnist_cnn_a_adv` and `resnet20`, with its first images.

    Raises:
        FileNotFoundError: if the folder is not there.
    """
    folder = PARITY / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: the benchmark needs the parity data beside the repository")
    network, mean, std = _BUILDERS[name]()
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    (file,) = folder.glob("images_*.npz")
    with np.load(file) as arrays:
        images, labels = torch.from_numpy(arrays["x"][:count]).float() / 255, torch.from_numpy(arrays["y"][:count])
    model = nn.Sequential(Standardise(mean, std), network) if mean else network
    return Stored(name, model.eval(), images, labels, json.loads((folder / "results.json").read_text()))


class Standardise(nn.Module):
    """`(x - mean) / std` per channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to standardised ones."""
        return (images - self.mean) / self.std


class Block(nn.Module):
    """Two convolutions with a shortcut that drops every other pixel and adds channels of zeros where shapes change."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.padding = (after - before) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + shortcut)


class ResNet20(nn.Module):
    """The CIFAR ResNet of He et al., CVPR 2016, with shortcuts of option A."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before, after, stride), Block(after, after, 1), Block(after, after, 1))
            for before, after, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to logits (N, 10)."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _cnn(channels: int, features: int) -> nn.Sequential:
    convolutions = (nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU())
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


_BUILDERS = {
    "cifar_cnn_a_adv": lambda: (
        _cnn(3, 2048),
        [125.3 / 255, 123.0 / 255, 113.9 / 255],
        [63.0 / 255, 62.1 / 255, 66.7 / 255],
    ),
    "mnist_cnn_a_adv": lambda: (_cnn(1, 1568), None, None),
    "resnet20": lambda: (ResNet20(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
