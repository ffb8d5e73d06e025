"""Motion blur against ImageMagick and against a plain sum over pixels."""

import math

import numpy as np
import pytest
import torch
from robust_bench.corruptions.motion import _gathered, _steps, _weights, motion_blur, sample_angle


def summed(image, angle, radius, sigma):
    """The sum of moved images, one step at a time; image (H, W)."""
    height, width = image.shape
    count = 2 * radius + 1
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(count)]
    down, right = count * math.sin(math.radians(angle)), count * math.cos(math.radians(angle))
    out = np.zeros_like(image)
    for step, weight in enumerate(weights):
        row = -math.ceil(step * down / math.hypot(down, right) - 0.5)
        column = -math.ceil(step * right / math.hypot(down, right) - 0.5)
        if abs(row) >= height or abs(column) >= width:
            break
        rows = np.clip(np.arange(height) - row, 0, height - 1)
        columns = np.clip(np.arange(width) - column, 0, width - 1)
        out += weight / sum(weights) * image[rows[:, None], columns]
    return out


ANGLES = torch.tensor([0.0, 17.3, -45.0, 44.999, 88.0, 90.0, -120.0, -150.0, 179.0, -7.2], dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("radius", "sigma"), [(10, 3), (20, 15), (6, 1)])
@pytest.mark.parametrize("size", [(40, 70), (32, 33)], ids=str)
def test_it_is_the_plain_sum(size, radius, sigma, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(ANGLES), channels, *size, dtype=torch.float64, generator=generator)
    out = motion_blur(images, ANGLES, radius, sigma)
    expected = [
        [summed(plane, angle, radius, sigma) for plane in image]
        for image, angle in zip(images.numpy(), ANGLES.tolist(), strict=True)
    ]
    torch.testing.assert_close(out, torch.from_numpy(np.array(expected)), rtol=0, atol=1e-12)
    on_a_device = _gathered(images, _steps(ANGLES, 2 * radius + 1), _weights(radius, sigma))
    torch.testing.assert_close(on_a_device, out, rtol=0, atol=1e-12)


def test_the_sum_stops_where_the_image_would_leave_itself():
    images = torch.ones(1, 1, 64, 32, dtype=torch.float64)
    weights = _weights(20, 15)
    out = motion_blur(images, torch.tensor([0.0]), 20, 15)
    torch.testing.assert_close(out, images * sum(weights[:32]))
    torch.testing.assert_close(motion_blur(images, torch.tensor([90.0]), 20, 15), images)


def test_a_point_becomes_a_line():
    image = torch.zeros(1, 1, 50, 50, dtype=torch.float64)
    image[0, 0, 25, 30] = 1.0
    out = motion_blur(image, torch.tensor([0.0]), 10, 4)[0, 0]
    torch.testing.assert_close(out[25, 10:31].flip(0), torch.tensor(_weights(10, 4), dtype=torch.float64))
    assert out.count_nonzero() == 21


@pytest.mark.shared_data
def test_imagemagick_gives_the_same(shared, apart):
    with np.load(shared / "corruptions" / "imagemagick_motion.npz") as arrays:
        stored = {name: torch.from_numpy(values).permute(2, 0, 1)[None] for name, values in arrays.items()}
    clean = stored.pop("clean").double() / 255
    assert len(stored) == 10
    for name, expected in stored.items():
        radius, sigma, angle = map(float, name.removeprefix("motion_").split("_"))
        for dtype, kept in ((torch.float32, 1e-6), (torch.float64, 0.0)):
            out = motion_blur(clean.to(dtype), torch.tensor([angle]), int(radius), sigma)
            largest, _, share = apart(((out + kept) * 255).clamp(0, 255).to(torch.uint8), expected)
            assert largest <= 1
            assert share < 0.01


def test_angles_are_uniform():
    angles = sample_angle(lambda _: torch.arange(2000) * 104729, (3, 32, 32), None)["angle"]
    assert angles.shape == (2000,)
    assert angles.abs().max() < 45
    ranks = torch.sort(angles / 90 + 0.5).values - (torch.arange(2000) + 0.5) / 2000
    assert ranks.abs().max() < 1.95 / 2000**0.5  # Kolmogorov-Smirnov, one in a thousand
