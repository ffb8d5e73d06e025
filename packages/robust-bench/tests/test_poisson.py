"""Shot noise: parity with the published code, and the exact distribution of the counts."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws, apply, corrupt
from robust_bench.corruptions.poisson import shot_noise, shot_noise_levels
from scipy import stats

STEPS = 65536


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_published_code_with_its_own_counts(published, severity, preset):
    clean, expected, numbers = published("shot_noise", severity, preset)
    photons = PRESETS[preset].constants["shot_noise"][severity - 1]
    counts = [
        np.random.RandomState(1000 * number + severity).poisson(image.permute(1, 2, 0).numpy() / 255.0 * photons)
        for number, image in zip(numbers, clean, strict=True)
    ]
    draws = Draws(count=len(numbers), fields={"counts": torch.from_numpy(np.stack(counts)).permute(0, 3, 1, 2)})
    assert torch.equal(apply("shot_noise", clean, severity, draws, preset=preset), expected)


@pytest.mark.parametrize("photons", [3, 12, 60, 75, 250, 500])
def test_all_uniform_numbers_together_are_the_poisson_distribution(photons):
    """Every one of the 65,536 uniform numbers once: each probability is met within one of them."""
    draws = Draws(count=1, fields={"uniform": ((torch.arange(STEPS) + 0.5) / STEPS).view(1, 1, 256, 256)})
    for level in (0, 1, 40, 128, 254, 255):
        images = torch.full((1, 1, 256, 256), level / 255, dtype=torch.float64)
        counts = (shot_noise(images, photons, draws) * photons).round().long()
        found = torch.bincount(counts.flatten(), minlength=photons + 1)
        expected = stats.poisson.pmf(np.arange(photons + 1), photons * level / 255)
        expected[-1] = stats.poisson.sf(photons - 1, photons * level / 255)  # as many or more: white
        assert len(found) == photons + 1
        assert np.abs(found.numpy() - expected * STEPS).max() < 1

        levels = shot_noise_levels(torch.full((1, 1, 256, 256), level, dtype=torch.uint8), photons, draws)
        assert torch.equal(levels, (counts / photons * 255).to(torch.uint8))


def test_mean_and_variance_of_own_draws():
    """Poisson(c x) / c has the mean x and the variance x / c; at c = 60 and x = 0.4 nothing is clipped."""
    images = torch.full((8, 3, 224, 224), 102, dtype=torch.uint8)
    values = corrupt(images, "shot_noise", 1).double().add(0.5).div(255)  # the middle of what was truncated
    count = values.numel()
    assert abs(values.mean() - 0.4) < 4.9 * (0.4 / 60 / count) ** 0.5 + 0.5 / 255
    assert values.var().item() == pytest.approx(0.4 / 60, rel=4.9 * (2 / count) ** 0.5 + 0.002)


def test_black_stays_black_and_a_white_pixel_is_never_grey_at_many_photons():
    assert corrupt(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "shot_noise", 5, "cifar").max() == 0
    white = corrupt(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), "shot_noise", 1, "cifar")
    assert white.min() > 255 * (1 - 6 / 500**0.5)
