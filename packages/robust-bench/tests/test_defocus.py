"""Defocus blur against a direct correlation."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws
from robust_bench.corruptions.defocus import defocus_blur, disk
from scipy import ndimage

CONSTANTS = sorted({constant for preset in PRESETS.values() for constant in preset.constants["defocus_blur"]})


def drawn(radius, softness):
    """The disk with its soft edge, on the grid of the published code."""
    reach, size = (8, 3) if radius <= 8 else (radius, 5)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (rows**2 + columns**2 <= radius**2).astype(float)
    edge = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * softness**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, edge / edge.sum(), axis=axis, mode="mirror")
    return kernel / (rows**2 + columns**2 <= radius**2).sum()


@pytest.mark.parametrize("constant", CONSTANTS, ids=str)
@pytest.mark.parametrize("size", [(32, 32), (45, 71), (224, 97)], ids=str)
def test_it_is_the_correlation_with_the_disk(size, constant):
    images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = drawn(*constant)[None, None]
    expected = torch.from_numpy(ndimage.correlate(images.numpy(), kernel, mode="mirror"))
    out = defocus_blur(images, constant, Draws(count=2, fields={}))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(defocus_blur(images.float(), constant, Draws(count=2, fields={})), out.float())


@pytest.mark.parametrize("constant", CONSTANTS, ids=str)
def test_the_disk_is_symmetric_and_without_empty_rows(constant):
    kernel = disk(*constant)
    torch.testing.assert_close(kernel, kernel.rot90())
    torch.testing.assert_close(kernel, kernel.flip(0))
    assert len(kernel) % 2 == 1
    assert kernel[0].any()
    fills_the_grid = constant[0] >= 8
    assert kernel.sum() == pytest.approx(1.012 if fills_the_grid else 1.0, abs=2e-3 if fills_the_grid else 1e-12)


def test_a_sharp_disk_covers_the_pixels_within_its_radius():
    kernel = disk(3, 0.01)
    assert kernel.shape == (7, 7)
    assert kernel.count_nonzero() == 29  # lattice points within a distance of 3
    torch.testing.assert_close(kernel[kernel > 0], torch.full((29,), 1 / 29, dtype=torch.float64))
