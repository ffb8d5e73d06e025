"""Gaussian smoothing with banded matrices, against scipy."""

import pytest
import torch
from robust_bench.corruptions.banded import gaussian, reflect, replicate
from scipy import ndimage


@pytest.mark.parametrize("sigmas", [(0.4, 0.4), (2.44, 2.44), (0.0, 3.0), (1.0, 7.5), (60.0, 60.0)], ids=str)
@pytest.mark.parametrize("size", [(224, 224), (32, 150), (57, 33)], ids=str)
@pytest.mark.parametrize(("border", "mode"), [(reflect, "reflect"), (replicate, "nearest")])
@pytest.mark.parametrize("truncate", [3.0, 4.0])
def test_equals_scipy(sigmas, size, border, mode, truncate):
    """Kernels wider than the image are among them."""
    images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, *sigmas), mode=mode, truncate=truncate)
    found = gaussian(images, sigmas, truncate, border)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)
    single = gaussian(images.float(), sigmas, truncate, border)
    torch.testing.assert_close(single, found.float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(32, 32), (37, 224), (224, 224)], ids=str)
def test_an_image_is_smoothed_alike_in_every_batch(size):
    """Bit for bit, or a later truncation would show it."""
    images = torch.rand(9, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = gaussian(images, (2.5, 1.5), 3.0, reflect)
    for count in (1, 2, 5):
        assert torch.equal(gaussian(images[:count], (2.5, 1.5), 3.0, reflect), whole[:count])


def test_a_plain_image_stays_plain_and_the_sum_is_kept():
    plain = torch.full((1, 1, 40, 50), 0.3, dtype=torch.float64)
    torch.testing.assert_close(gaussian(plain, (3.0, 2.0), 4.0, replicate), plain)
    images = torch.rand(1, 1, 40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussian(images, (9.0, 2.0), 3.0, reflect).sum(), images.sum())
