"""Sequences of blur: against plain sums, SciPy and Pillow."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions.sequences import frames
from scipy import ndimage

SIDE = {"imagenet": 224, "cifar": 32}


def dragged(plane, angle, radius, sigma):
    """The sum of moved planes (H, W), one step at a time."""
    height, width = plane.shape
    steps = np.arange(2 * radius + 1)
    down, right = (len(steps) * part(math.radians(angle)) for part in (math.sin, math.cos))  # as ImageMagick rounds
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    out = np.zeros(plane.shape)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        row = -math.ceil(step * down / math.hypot(down, right) - 0.5)
        column = -math.ceil(step * right / math.hypot(down, right) - 0.5)
        if abs(row) >= height or abs(column) >= width:
            break
        rows, columns = np.arange(height) - row, np.arange(width) - column
        out += weight * plane[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return out


@pytest.mark.parametrize(
    ("preset", "radius", "sigma", "angle", "shown"),
    [
        ("imagenet", 10, 3, lambda frame: 4 * (frame - 30), (0, 1, 17, 30)),
        ("cifar", 6, 1.8, lambda frame: 9 * (frame - 20), range(21)),
    ],
)
def test_motion_blur_turns(pictures, preset, radius, sigma, angle, shown):
    images = pictures(count=1, size=(SIDE[preset],) * 2)
    found = list(frames(images, "motion_blur", preset))
    apart = []
    for frame in shown:
        planes = [dragged(plane, angle(frame), radius, sigma) for plane in images[0].double().numpy()]
        apart.append(np.abs(found[frame][0].numpy() - np.floor(np.stack(planes) + 255e-6)))
    assert np.max(apart) <= 1
    assert np.mean(np.stack(apart) > 0) < 5e-3


def test_motion_blur_ends_at_a_drag_to_the_left():
    """At 0 degrees the weights lie to the right, and at -90 degrees above."""
    images = torch.zeros(1, 1, 224, 224, dtype=torch.uint8)
    images[0, 0, 100, 100] = 255
    last = list(frames(images, "motion_blur"))[-1][0, 0]
    assert (last > 0).nonzero()[:, 0].unique().tolist() == [100]
    assert last[100].argmax() == 100
    assert last[100, 101:].sum() == 0


@pytest.mark.parametrize("preset", SIDE)
def test_zoom_blur_is_the_mean_of_8_bit_enlargements_so_far(pictures, preset):
    size = (256, 279) if preset == "imagenet" else (32, 32)
    images = pictures(count=1, size=size)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    height, width = size
    centre = width / 2 + 0.5, height / 2 + 0.5
    top, left = (round((side - SIDE[preset]) / 2) for side in size)
    total = 0
    for number, found in enumerate(frames(images, "zoom_blur", preset)):
        factor = 1 + 0.004 * number
        rows = (1 / factor, 0, centre[0] * (1 - 1 / factor), 0, 1 / factor, centre[1] * (1 - 1 / factor))
        zoomed = picture.transform(picture.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
        total = total + np.asarray(zoomed)[top : top + SIDE[preset], left : left + SIDE[preset]].astype(int)
        apart = np.abs(found[0].permute(1, 2, 0).numpy() - total // (number + 1))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("preset", "first", "step", "truncate", "shown"),
    [("imagenet", 0.25, 0.035, 6.0, (0, 9, 30)), ("cifar", 0.3, 0.015, 7.0, range(31))],
)
def test_gaussian_blur_grows(pictures, preset, first, step, truncate, shown):
    images = pictures(count=1, size=(SIDE[preset],) * 2)
    found = list(frames(images, "gaussian_blur", preset))
    for frame in shown:
        sigma = first + step * frame
        smooth = ndimage.gaussian_filter(
            images[0].double().numpy(), (0, sigma, sigma), mode="nearest", truncate=truncate
        )
        apart = np.abs(found[frame][0].numpy() - np.floor(smooth + 255e-6))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 5e-3


@pytest.mark.parametrize(
    ("preset", "sigma", "truncate", "shorter"), [("imagenet", 1.3, 6.0, 4.0), ("cifar", 0.75, 7.0, 3.0)]
)
def test_gaussian_blur_reaches_far(preset, sigma, truncate, shorter):
    """Beside an edge white stays white from where the kernel ends, or a millionth of black is left."""
    edge = torch.zeros(1, 1, SIDE[preset], SIDE[preset], dtype=torch.uint8)
    edge[..., 16:] = 255
    last = list(frames(edge, "gaussian_blur", preset))[-1][0, 0, 9]
    smooth = ndimage.gaussian_filter1d(edge[0, 0, 9].double().numpy(), sigma, mode="nearest", truncate=truncate)
    np.testing.assert_array_equal(last.numpy(), np.floor(smooth + 255e-6))
    short = ndimage.gaussian_filter1d(edge[0, 0, 9].double().numpy(), sigma, mode="nearest", truncate=shorter)
    assert (np.floor(short + 255e-6) != last.numpy()).any()


def test_blur_takes_from_the_image_as_it_goes_on(pictures):
    """A running mean needs all frames before it: what is shown later does not change what was shown."""
    images = pictures(count=2)
    stream = frames(images, "zoom_blur", "cifar")
    first = [frame.clone() for frame in itertools.islice(stream, 5)]
    list(stream)
    assert all(torch.equal(one, other) for one, other in zip(first, frames(images, "zoom_blur", "cifar"), strict=False))
