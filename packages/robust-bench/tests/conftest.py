"""Small data and models that every test file uses, and hypothesis without a clock."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from robust_bench import Result, Row
from torch import Tensor, nn
from torch.utils.data import TensorDataset

settings.register_profile("steady", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("steady")

ABOVE = Path(__file__).resolve().parents
SHARED = ABOVE[min(4, len(ABOVE) - 1)] / "shared" / "data"  # beside the repository, if this is one


CHROMIUM = next(
    (
        path
        for path in ("/usr/bin/chromium", shutil.which("chromium"), shutil.which("google-chrome"))
        if path and Path(path).is_file()
    ),
    None,
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("shared_data") and not SHARED.is_dir():
        pytest.skip(f"needs the images in {SHARED}")


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


class Threshold(nn.Module):
    """Class 1 where the mean of an image exceeds one half: right and wrong are known, the arithmetic is per image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        score = self.scale * (images.double().mean(dim=(1, 2, 3)) - 0.5)
        return self.dropout(torch.stack((-score, score), dim=1).float())


@pytest.fixture
def model() -> nn.Module:
    return Threshold()


@pytest.fixture
def grey() -> TensorDataset:
    """21 constant images 1 x 8 x 8 of grey 0, 0.05 .. 1, labelled 1 above one half; two labels are wrong."""
    values = torch.arange(21) / 20
    labels = (values > 0.5).long()
    labels[[3, 18]] = 1 - labels[[3, 18]]
    return TensorDataset(values[:, None, None, None].expand(21, 1, 8, 8).contiguous(), labels)


@pytest.fixture
def result() -> Result:
    """A result with every kind of row."""

    def row(benchmark: str, condition: str, correct: int, **settings: object) -> Row:
        return Row.accuracy(
            benchmark=benchmark, condition=condition, settings=settings, correct=correct, count=450, seconds=1.5
        )

    attack = {"kind": "attack", "attack": "PGD", "norm": "Linf", "steps": 20, "restarts": 3}
    rows = [row("digits", "clean", 441, kind="clean")]
    rows += [
        row("digits", f"PGD-20 × 3, Linf {eps}", correct, **attack, eps=eps) for eps, correct in ((0.1, 245), (0.2, 0))
    ]
    rows += [
        row("digits", f"contrast {severity}", 440 - 70 * severity, kind="corruption", corruption="contrast",
            severity=severity, preset="cifar")
        for severity in (1, 2, 3, 4, 5)
    ]  # fmt: skip
    return Result(
        model="small_cnn_8",
        benchmark="digits,digits-pgd,digits-c",
        seed=7,
        rows=tuple(rows),
        versions={"torch": "2.14.1"},
        created="2026-01-31T12:00:00Z",
        settings={
            "data": {"digits": {"dataset": "digits"}},
            "device": "cpu",
        },
    )


# ---- corruptions ----


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """Make smooth random uint8 images with exact black, white and grey areas among them."""

    def make(count: int = 5, size: tuple[int, int] = (32, 32), channels: int = 3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand((count, channels, 5, 5), generator=generator)
        fine = nn.functional.interpolate(coarse, size=size, mode="bilinear")
        out = (fine * 1.4 - 0.2).clamp(0, 1).mul(255).round().to(torch.uint8)
        out[:, :, :2, :2] = 0
        out[:, :, -2:, -2:] = 255
        out[:, :, :2, -2:] = 77
        return out

    return make


@pytest.fixture(scope="session")
def published(shared: Path) -> Callable[..., tuple[Tensor, Tensor, list[int]]]:
    """Look up what the published code gave: clean and corrupted images (N, 3, H, W), and the images' numbers.

    At 224 pixels the main branch of `imagecorruptions`, at 32 pixels the original script of CIFAR-10-C.
    """
    with (
        np.load(shared / "corruptions" / "reference.npz") as large,
        np.load(shared / "corruptions" / "reference_cifar32.npz") as small,
    ):
        arrays = {"imagenet": dict(large), "cifar": dict(small)}

    def find(name: str, severity: int, preset: str) -> tuple[Tensor, Tensor, list[int]]:
        found = arrays[preset]
        if preset == "cifar":
            return channels_first(found["clean"]), channels_first(found[name][:, severity - 1]), [0, 1, 2, 3]
        numbers = [number for number in range(4) if f"{name}/img{number}_png" in found]
        stacks = [Image.open(io.BytesIO(found[f"{name}/img{number}_png"].tobytes())) for number in numbers]
        corrupted = np.stack([np.asarray(stack).reshape(5, 224, 224, 3)[severity - 1] for stack in stacks])
        return channels_first(found["clean"][numbers]), channels_first(corrupted), numbers

    return find


@pytest.fixture(scope="session")
def apart() -> Callable[[Tensor, Tensor], tuple[int, float, float]]:
    """Compare uint8 images: largest difference, mean difference, share of values that differ."""

    def compare(found: Tensor, expected: Tensor) -> tuple[int, float, float]:
        difference = (found.int() - expected.int()).abs()
        return int(difference.max()), float(difference.double().mean()), float((difference > 0).double().mean())

    return compare


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3)))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium at /usr/bin/chromium or on the path")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive the browser")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()
