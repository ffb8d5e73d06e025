"""Sequences of weather and light: the published steps in NumPy, SciPy and OpenCV, and closed forms."""

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch
from robust_bench.corruptions import Draws
from robust_bench.corruptions.sequences import apply, frames
from robust_bench.corruptions.sequences.weather import run_down
from scipy import ndimage

SIDE = {"imagenet": 224, "cifar": 32}


def injected(images, normal, name, preset):
    draws = Draws(count=len(images), fields={"normal": torch.from_numpy(normal)})
    return apply(name, images, lambda _: draws, preset=preset)


def blurred(layer, angle, radius, sigma):
    """The sum of moved layers, with the outermost pixels continued."""
    height, width = layer.shape
    steps = np.arange(2 * radius + 1)
    down, right = (len(steps) * part(math.radians(angle)) for part in (math.sin, math.cos))  # as ImageMagick rounds
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    out = np.zeros_like(layer)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        row = -math.ceil(step * down / math.hypot(down, right) - 0.5)
        column = -math.ceil(step * right / math.hypot(down, right) - 0.5)
        rows, columns = np.arange(height) - row, np.arange(width) - column
        out += weight * layer[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return out


@pytest.mark.parametrize(
    ("preset", "zoom", "radius", "sigma", "shown"),
    [("imagenet", 3, 14, 4, (0, 13, 30)), ("cifar", 2, 10, 2, range(0, 31, 3))],
)
def test_the_same_flakes_are_blown_in_a_wind_that_turns(pictures, preset, zoom, radius, sigma, shown):
    side = SIDE[preset]
    images = pictures(count=1, size=(side, side))
    normal = np.random.default_rng(0).normal(size=(side, side))
    middle = math.ceil(side / zoom)
    top = (side - middle) // 2
    layer = ndimage.zoom((0.05 + 0.3 * normal)[top : top + middle, top : top + middle], zoom, order=1)
    trim = (len(layer) - side) // 2
    layer = layer[trim : trim + side, trim : trim + side]
    layer = np.floor(np.where(layer < 0.5, 0, layer).clip(0, 1) * 255)
    x = images[0].double().numpy() / 255
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    white = 0.85 * x + 0.15 * np.maximum(x, 1.5 * grey + 0.5)
    found = list(injected(images, normal[None], "snow", preset))
    assert (layer > 0).mean() > 0.01
    for frame in shown:
        blown = np.floor(blurred(layer, 4 * frame - 150, radius, sigma) + 255e-6) / 255
        expected = np.floor((white + blown + np.rot90(blown, 2)).clip(0, 1) * 255 + 255e-6)
        apart = np.abs(found[frame][0].numpy() - expected)
        assert apart.max() <= 2  # a level of the layer may fall the other way, and counts twice
        assert (apart > 0).mean() < 5e-3


@pytest.mark.parametrize("preset", SIDE)
def test_water_runs_down_as_the_published_steps_have_it(pictures, preset):
    opencv = pytest.importorskip("cv2")
    mean, deviation, sigma, threshold, kernel = {
        "imagenet": (0.65, 0.27, 3.7, 0.69, [0.05, 0.1, 0.15, 0.7]),
        "cifar": (0.6, 0.265, 1.75, 0.7, [0.2, 0.8]),
    }[preset]
    side = SIDE[preset]
    images = pictures(count=1, size=(side, side))
    normal = np.random.default_rng(3).normal(size=(side, side))
    layer = ndimage.gaussian_filter(mean + deviation * normal, sigma, mode="nearest")
    layer[layer < threshold] = 0
    x = images[0].double().numpy() / 255
    water = np.array([175, 238, 238])[:, None, None] / 255
    wet = 0
    for found in itertools.islice(injected(images, normal[None], "spatter", preset), 8 if side > 32 else 31):
        levels = (layer * 255).astype(np.uint8)
        far = opencv.distanceTransform(255 - opencv.Canny(levels, 50, 150), opencv.DIST_L2, 5)
        depth = opencv.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
        relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        depth = opencv.blur(opencv.filter2D(opencv.equalizeHist(depth), opencv.CV_8U, relief), (3, 3))
        shine = levels * depth.astype(np.float32)
        shine = shine / shine.max() if shine.max() > 0 else shine
        wet += (shine > 0).sum()
        apart = np.abs(found[0].numpy() - np.floor((x + 0.6 * shine * water).clip(0, 1) * 255 + 255e-6))
        assert (apart > 1).mean() < 1e-3
        assert (apart > 0).mean() < 0.01
        layer = np.stack([np.convolve(column, kernel, mode="same") for column in layer.T], axis=1)
    assert wet > 0


@pytest.mark.parametrize("kernel", [(0.2, 0.8), (0.05, 0.1, 0.15, 0.7), (0.1, 0.2, 0.7), (1.0,)])
def test_columns_are_convolved_as_numpy_does(kernel):
    layer = np.random.default_rng(0).random((2, 9, 5))
    found = run_down(torch.from_numpy(layer), kernel).numpy()
    for image, other in zip(layer, found, strict=True):
        for column in range(5):
            np.testing.assert_allclose(other[:, column], np.convolve(image[:, column], kernel, mode="same"))


def test_water_moves_down_and_not_up():
    layer = torch.zeros(1, 20, 1, dtype=torch.float64)
    layer[0, 5] = 1.0
    for kernel in ((0.05, 0.1, 0.15, 0.7), (0.2, 0.8)):
        moved = run_down(layer, kernel)[0, :, 0]
        assert moved.sum() == pytest.approx(1.0)
        assert (moved * torch.arange(20)).sum() > 5.5


def test_brightness_is_that_of_the_hsv_model(pictures):
    images = pictures(count=1)[:, :, ::3, ::3]
    images = images.repeat(1, 1, 3, 3)[:, :, :32, :32]
    pixels = images[0].permute(1, 2, 0).reshape(-1, 3)
    colours = pixels.unique(dim=0)
    for frame, found in enumerate(frames(images, "brightness", "cifar")):
        added = 1.5 * (frame - 15) / 100
        seen = dict(zip(map(tuple, pixels.tolist()), found[0].permute(1, 2, 0).reshape(-1, 3).tolist(), strict=True))
        for colour in colours.tolist():
            hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
            raised = colorsys.hsv_to_rgb(hue, saturation, min(max(value + added, 0.0), 1.0))
            assert seen[tuple(colour)] == [int(255 * level + 2.55e-4) for level in raised]


@pytest.mark.parametrize(("preset", "step"), [("imagenet", 2.0), ("cifar", 1.5)])
def test_brightness_of_grey_goes_up_in_equal_steps(preset, step):
    side = SIDE[preset]
    grey = torch.full((1, 3, side, side), 102, dtype=torch.uint8)  # 0.4
    for frame, found in enumerate(frames(grey, "brightness", preset)):
        level = math.floor(255 * (0.4 + step * (frame - 15) / 100) + 2.55e-4)
        assert found.unique().tolist() == [level]
