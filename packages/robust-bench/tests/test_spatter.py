"""Spatter: against the published code, OpenCV's steps where it is installed, plain loops, and closed forms."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws, apply
from robust_bench.corruptions.spatter import _equalised, _relief, _rounded_mean3, _shine, spatter
from scipy import ndimage

WATER, MUD = (0.65, 0.3, 2, 0.68, 0.5, 0), (0.65, 0.3, 1, 0.65, 1.5, 1)


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_published_code_with_its_draws(published, apart, severity, preset):
    clean, expected, numbers = published("spatter", severity, preset)
    fields = [np.random.RandomState(1000 * number + severity).normal(size=clean.shape[2:]) for number in numbers]
    draws = Draws(count=len(fields), fields={"normal": torch.from_numpy(np.stack(fields))})
    for precision in ("float32", "double"):
        largest, _, share = apart(
            apply("spatter", clean, severity, draws, preset=preset, precision=precision), expected
        )
        assert largest <= 1
        assert share < 1e-3


def layer(seed=0, size=(60, 80), sigma=2.0):
    """Drops of water on black, uint8 (N, H, W)."""
    noise = np.random.default_rng(seed).normal(0.65, 0.3, (3, *size))
    smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    return (np.where(smooth < 0.68, 0, smooth) * 255).astype(np.uint8)


def test_water_shines_as_opencvs_steps_have_it():
    opencv = pytest.importorskip("cv2")
    levels = layer()
    for one, found in zip(levels, _shine(levels), strict=True):
        far = opencv.distanceTransform(255 - opencv.Canny(one, 50, 150), opencv.DIST_L2, 5)
        depth = opencv.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        relief = opencv.blur(opencv.filter2D(opencv.equalizeHist(depth), opencv.CV_8U, kernel), (3, 3))
        light = one * relief.astype(np.float32)
        np.testing.assert_allclose(found, light / light.max(), rtol=0, atol=1e-6)


def test_levels_are_spread_by_their_ranks():
    """A level becomes the share of pixels of its own or a lower level, without those of the lowest, times 255."""
    levels = np.random.default_rng(0).binomial(20, 0.3, (2, 30, 40)).astype(np.uint8)
    levels[1] //= 3
    for image, found in zip(levels, _equalised(levels), strict=True):
        above = image > image.min()
        for level in np.unique(image):
            share = (above & (image <= level)).sum() / above.sum()
            assert abs(int(found[image == level][0]) - 255 * share) <= 0.5 + 1e-4
    plain = np.full((1, 8, 8), 20, dtype=np.uint8)
    np.testing.assert_array_equal(_equalised(plain), plain)


def test_filters_are_those_of_scipy():
    levels = np.random.default_rng(1).integers(0, 256, (2, 20, 31), dtype=np.uint8)
    for image, mean, relief in zip(levels.astype(float), _rounded_mean3(levels), _relief(levels), strict=True):
        np.testing.assert_array_equal(mean, np.rint(ndimage.correlate(image, np.ones((3, 3)) / 9, mode="mirror")))
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        np.testing.assert_array_equal(relief, ndimage.correlate(image, kernel, mode="mirror").clip(0, 255))


def test_light_lies_between_zero_and_one_on_the_drops_alone():
    levels = layer(1)
    light = _shine(levels)
    assert light.dtype == np.float32
    assert (light.max(axis=(1, 2)) == 1).all()
    assert light.min() == 0
    assert not light[levels == 0].any()
    assert not _shine(np.zeros((2, 32, 32), dtype=np.uint8)).any()


def test_water_adds_pale_turquoise():
    images = torch.rand(2, 3, 40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = Draws(count=2, fields={"normal": torch.randn(2, 40, 50, generator=torch.Generator().manual_seed(1))})
    added = (spatter(images, WATER, draws) - images) * 255
    torch.testing.assert_close(added[:, 0] / 175, added[:, 1] / 238)
    torch.testing.assert_close(added[:, 1], added[:, 2])
    torch.testing.assert_close(added.amax(dim=(1, 2, 3)), torch.full((2,), 0.5 * 238, dtype=torch.float64))


def test_mud_is_a_smoothed_mask():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 3, 60, 50, dtype=torch.float64, generator=generator)
    normal = torch.randn(2, 60, 50, dtype=torch.float64, generator=generator)
    out = spatter(images, MUD, Draws(count=2, fields={"normal": normal})).numpy()
    for image, noise, found in zip(images.numpy(), normal.numpy(), out, strict=True):
        liquid = ndimage.gaussian_filter(0.65 + 0.3 * noise, 1, mode="nearest")
        mask = ndimage.gaussian_filter((liquid > 0.65).astype(float), 1.5, mode="nearest")
        mask = np.where(mask < 0.8, 0, mask)
        assert 0.05 < (mask > 0).mean() < 0.5
        mud = np.array([63, 42, 20])[:, None, None] / 255
        np.testing.assert_allclose(found, image * (1 - mask) + mask * mud, rtol=0, atol=1e-12)


@pytest.mark.parametrize("constant", [WATER, MUD])
def test_a_dry_lens_changes_nothing_and_a_wet_one_all_alike(constant):
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    dry = Draws(count=1, fields={"normal": torch.full((1, 32, 32), -5.0)})
    assert torch.equal(spatter(images, constant, dry), images)
    wet = spatter(images, constant, Draws(count=1, fields={"normal": torch.full((1, 32, 32), 2.0)}))
    if constant is MUD:
        colour = torch.tensor([63.0, 42.0, 20.0])[None, :, None, None] / 255
        torch.testing.assert_close(wet, colour.expand_as(images))
    else:  # no edge anywhere: the relief is even, and so is the light
        colour = 0.5 * torch.tensor([175.0, 238.0, 238.0])[None, :, None, None] / 255
        torch.testing.assert_close(wet - images, colour.expand_as(images))


def test_the_liquid_does_not_depend_on_the_precision_of_the_images():
    for severity in (3, 5):
        constant = PRESETS["imagenet"].constants["spatter"][severity - 1]
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        draws = Draws(count=2, fields={"normal": torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(4))})
        torch.testing.assert_close(
            spatter(images, constant, draws), spatter(images.double(), constant, draws).float(), rtol=0, atol=1e-6
        )
