import json

import matplotlib
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn

matplotlib.use("agg")  # also where a developer's settings ask for a window


class Linear(nn.Module):
    """Two classes with the logits (w . x + b, 0): the boundary is a hyperplane at distance (w . x + b) / norm(w)."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(torch.as_tensor(bias, dtype=weight.dtype))

    def forward(self, images):
        first = images.flatten(1) @ self.weight.flatten() + self.bias
        return torch.stack([first, torch.zeros_like(first)], dim=1)


@pytest.fixture
def linear():
    """A linear model, the image it is looked at and its margin there: (model, image, 0.3)."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, 5, generator=random, dtype=torch.float64)
    image = 0.3 + 0.4 * torch.rand(3, 6, 5, generator=random, dtype=torch.float64)
    return Linear(weight, 0.3 - float((weight * image).sum())), image, 0.3


@pytest.fixture
def network():
    """A small convolutional network with batch norm and dropout, in train mode: five classes, 3 x 8 x 8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6 * 36, 5)
        )
        for _ in range(5):
            model(torch.rand(16, 3, 8, 8))
    return model


@pytest.fixture
def contrast():
    """Contrast of two colours by WCAG 2.1, whose level AA asks for 4.5."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def ratio(one, other):
        dark, bright = sorted((luminance(one), luminance(other)))
        return (bright + 0.05) / (dark + 0.05)

    return ratio


def row(value, low=None, high=None, metric="accuracy", **settings):
    return {
        "condition": "some",
        "settings": settings,
        "metric": metric,
        "value": value,
        "low": max(0, value - 0.02) if low is None else low,
        "high": min(1, value + 0.02) if high is None else high,
        "correct": round(value * 450),
        "count": 450,
        "seconds": 1.0,
    }


def attack(eps, value, name="PGD", norm="Linf", steps=20, restarts=3, **more):
    return row(value, kind="attack", attack=name, norm=norm, eps=eps, steps=steps, restarts=restarts, **more)


@pytest.fixture
def make_result():
    """Make the content of a result.json: accuracies by eps, and errors by corruption and severity."""

    def make(model="ordinary", clean=0.97, pgd=((0.05, 0.8), (0.1, 0.5)), corruptions=(), benchmark="digits", rows=()):
        return {
            "format": "robust-result/1",
            "model": model,
            "benchmark": benchmark,
            "seed": 0,
            "versions": {},
            "created": "2026-01-01T00:00:00Z",
            "settings": {},
            "rows": [
                row(clean, kind="clean"),
                *(attack(eps, value) for eps, value in pgd),
                *(row(1 - error, kind="corruption", corruption=c, severity=s) for c, s, error in corruptions),
                *rows,
            ],
        }

    make.attack, make.row = attack, row
    return make


@pytest.fixture
def run_folder(tmp_path, make_result):
    """A run of two models with attacks and corruptions."""
    cells = [(name, severity, severity / 10) for name in ("gaussian_noise", "contrast") for severity in range(1, 6)]
    for model, pgd in (("ordinary", ((0.05, 0.6), (0.1, 0.2))), ("robust", ((0.05, 0.9), (0.1, 0.8)))):
        folder = tmp_path / "run" / model
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(make_result(model, pgd=pgd, corruptions=cells)))
    return tmp_path / "run"
