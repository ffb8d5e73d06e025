"""Snow: against the published code, the same steps in NumPy and SciPy, and closed forms."""

import math

import numpy as np
import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws
from robust_bench.corruptions.levels import truncate, unit
from robust_bench.corruptions.snow import sample_snow, snow, snow_without_truncation
from scipy import ndimage

VARIANTS = pytest.mark.parametrize("variant", [snow, snow_without_truncation])


@pytest.mark.shared_data
@pytest.mark.parametrize(("preset", "variant"), [("imagenet", snow_without_truncation), ("cifar", snow)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_published_code_with_its_draws(published, apart, severity, preset, variant):
    clean, expected, numbers = published("snow", severity, preset)
    constant = PRESETS[preset].constants["snow"][severity - 1]
    normal, angle = [], []
    for number in numbers:
        random = np.random.RandomState(1000 * number + severity)
        normal.append(random.normal(size=clean.shape[2:]))
        angle.append(random.uniform(-135, -45))
    fields = {"normal": torch.from_numpy(np.stack(normal)), "angle": torch.tensor(angle, dtype=torch.float64)}
    draws = Draws(count=len(numbers), fields=fields)
    for dtype in (torch.float32, torch.float64):
        largest, _, share = apart(truncate(variant(unit(clean, dtype), constant, draws)), expected)
        assert largest <= 1
        assert share < 2e-3


def blurred(layer, angle, radius, sigma):
    """The sum of moved layers, with the outermost pixels continued."""
    height, width = layer.shape
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    out = np.zeros_like(layer)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        row = -math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        column = -math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        if abs(row) >= height or abs(column) >= width:
            break
        rows, columns = np.arange(height) - row, np.arange(width) - column
        out += weight * layer[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return out


def snowed(image, normal, angle, constant, original):
    """The steps of the specification for one image (3, H, W), float64."""
    mean, deviation, zoom, threshold, radius, sigma, share = constant
    height, width = normal.shape
    rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - rows) // 2, (width - columns) // 2
    layer = (mean + deviation * normal)[top : top + rows, left : left + columns]
    layer = ndimage.zoom(layer, zoom, order=1)
    if original:
        top, left = (layer.shape[0] - height) // 2, (layer.shape[1] - width) // 2
        layer = layer[top : top + height, left : left + width]
    layer = np.where(layer < threshold, 0, layer).clip(0, 1)
    if original:
        layer = np.floor(layer * 255) / 255
    layer = blurred(layer, angle, radius, sigma)[:height, :width]
    layer = (np.floor(layer * 255 + 255e-6) if original else np.round(layer * 255)) / 255
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    whitened = share * image + (1 - share) * np.maximum(image, 1.5 * grey + 0.5)
    return whitened + layer + np.rot90(layer, 2)


@VARIANTS
@pytest.mark.parametrize("size", [(45, 70), (64, 33), (100, 100)], ids=str)
@pytest.mark.parametrize("severity", [1, 3, 4])
def test_is_what_the_steps_give_one_by_one(variant, size, severity):
    constant = PRESETS["imagenet"].constants["snow"][severity - 1]
    images = torch.rand(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(severity))
    angles = [-133.7, -91.2, -50.3]
    normal = np.random.default_rng(0).normal(size=(3, *size))
    fields = {"normal": torch.from_numpy(normal), "angle": torch.tensor(angles, dtype=torch.float64)}
    found = variant(images, constant, Draws(count=3, fields=fields))
    each = zip(images.numpy(), normal, angles, strict=True)
    expected = np.stack([snowed(image, noise, angle, constant, variant is snow) for image, noise, angle in each])
    apart = np.abs(found.numpy() - expected)
    assert apart.max() < 1.001 / 255 * 2  # a level of the layer may fall the other way, and counts twice
    assert (apart > 1e-9).mean() < 1e-4


def drawn(normal, angle=-90.0):
    fields = {"normal": normal, "angle": torch.full((len(normal),), angle, dtype=torch.float64)}
    return Draws(count=len(normal), fields=fields)


@VARIANTS
def test_without_flakes_the_image_is_whitened(variant):
    images = torch.rand(2, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = variant(images, (0.1, 0.3, 2, 0.5, 10, 4, 0.8), drawn(torch.full((2, 32, 40), -9.0)))
    grey = (images * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]).sum(dim=1, keepdim=True)
    torch.testing.assert_close(out, 0.8 * images + 0.2 * torch.maximum(images, 1.5 * grey + 0.5))


@VARIANTS
def test_an_even_layer_of_snow_stays_even(variant):
    """Zooming and blurring keep a constant: 204 of 255 levels, added twice; exact levels must not fall."""
    for dtype in (torch.float32, torch.float64):
        images = torch.zeros(1, 1, 64, 64, dtype=dtype)
        out = variant(images, (0.8 + 1e-4, 0.3, 3, 0.5, 12, 8, 1.0), drawn(torch.zeros(1, 64, 64, dtype=dtype), -77.0))
        torch.testing.assert_close(out, torch.full_like(images, 2 * 204 / 255))


@VARIANTS
def test_flakes_are_added_once_more_upside_down(variant):
    images = torch.zeros(2, 3, 48, 48, dtype=torch.float64)
    draws = Draws(count=2, fields=sample_snow(lambda _: torch.tensor([5, 6]), (3, 48, 48), None))
    out = variant(images, (0.1, 0.3, 2, 0.5, 10, 4, 1.0), draws)
    assert out.std() > 0.02
    torch.testing.assert_close(out, out.flip(2, 3))


def test_snow_falls_downwards():
    """At -90 degrees a single flake is drawn out down its column, and its copy up the opposite one."""
    normal = torch.full((1, 64, 64), -9.0, dtype=torch.float64)
    normal[0, 20, 30] = 9.0
    out = snow(torch.zeros(1, 1, 64, 64, dtype=torch.float64), (0.1, 0.3, 1, 0.5, 10, 4, 1.0), drawn(normal))[0, 0]
    rows, columns = out.nonzero().unbind(1)
    assert set(columns.tolist()) == {30, 33}
    assert {row for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if column == 30} == set(
        range(20, 20 + len(rows) // 2)
    )


def test_draws_are_standard_normal_and_angles_between_the_bounds():
    fields = sample_snow(lambda purpose: torch.arange(500) * 7919 + len(purpose) * 10**9, (3, 32, 32), None)
    normal, angle = fields["normal"].double(), fields["angle"]
    assert normal.shape == (500, 32, 32)
    assert abs(normal.mean()) < 4.9 / normal.numel() ** 0.5
    assert abs(normal.var() - 1) < 4.9 * (2 / normal.numel()) ** 0.5
    assert angle.min() > -135
    assert angle.max() < -45
    assert abs(angle.mean() + 90) < 4.9 * 90 / 12**0.5 / 500**0.5
    assert abs(angle.std() - 90 / 12**0.5) < 2.5
