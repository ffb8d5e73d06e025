"""Zoom blur against scipy's resizing, which the published code uses."""

import math

import numpy as np
import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws
from robust_bench.corruptions.zoom import enlarge, factors, zoom_blur
from scipy import ndimage

STEPS = sorted({constant[1:] for preset in PRESETS.values() for constant in preset.constants["zoom_blur"]})


def enlarged(plane, factor):
    """The centre of an image (H, W), enlarged."""
    crop = []
    for side in plane.shape:
        middle = math.ceil(side / factor)
        crop.append(slice((side - middle) // 2, (side - middle) // 2 + middle))
    return ndimage.zoom(plane[tuple(crop)], factor, order=1)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.12, 1.3, 2.0, 2.5, 3.0, 4.0, 4.5])
@pytest.mark.parametrize("size", [(32, 32), (64, 45), (224, 131)], ids=str)
def test_enlarge_is_the_zoom_of_scipy(size, factor):
    images = torch.rand(2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = enlarge(images, factor)
    expected = np.stack([enlarged(image[0], factor)[None] for image in images.numpy()])
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert all(found >= side for found, side in zip(out.shape[2:], size, strict=True))


@pytest.mark.parametrize(("step", "count"), STEPS)
@pytest.mark.parametrize("size", [(32, 32), (57, 113), (224, 70)], ids=str)
def test_it_is_the_mean_of_the_image_and_its_enlargements(size, step, count):
    images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    height, width = size
    expected = images.numpy().copy()
    for factor in np.arange(1, 1 + (count - 0.5) * step, step):
        for image, total in zip(images.numpy(), expected, strict=True):
            for plane, sums in zip(image, total, strict=True):
                layer = enlarged(plane, factor)
                top, left = (layer.shape[0] - height) // 2, (layer.shape[1] - width) // 2
                assert (top, left) == (0, 0)  # so that the variants, which cut elsewhere, come to the same
                sums += layer[:height, :width]
    out = zoom_blur(images, (1 + (count - 1) * step, step, count), Draws(count=2, fields={}))
    torch.testing.assert_close(out, torch.from_numpy(expected / (count + 1)), rtol=0, atol=1e-12)


def test_factors_are_those_of_numpy():
    ends = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # as in the published code
    counts = [constant[2] for constant in PRESETS["imagenet"].constants["zoom_blur"]]
    for (end, step), count in zip(ends, counts, strict=True):
        assert factors(step, count) == tuple(np.arange(1, end, step).tolist())
    for end, step, count in PRESETS["cifar"].constants["zoom_blur"]:
        assert factors(step, count)[-1] == pytest.approx(end)


def test_no_enlargement_is_more_than_a_pixel_too_large():
    for factor in {factor for step, count in STEPS for factor in factors(step, count)}:
        assert all(round(math.ceil(side / factor) * factor) - side in (0, 1) for side in range(32, 1025))
