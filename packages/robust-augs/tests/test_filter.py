import math

import pytest
import torch
from robust_augs.filter import FilterDraws, RandomFilter


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(image, kernel):
    """One channel under one kernel with zeros around it, entry by entry, clipped."""
    height, width = image.shape
    reach = len(kernel) // 2
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for i in range(len(kernel)):
                for j in range(len(kernel)):
                    row, column = y + i - reach, x + j - reach
                    if 0 <= row < height and 0 <= column < width:
                        total += kernel[i, j].item() * image[row, column].item()
            result[y, x] = min(max(total, 0.0), 1.0)
    return result


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shift", [False, True])
def test_equals_the_sum_over_each_pixels_neighbours(size, shift):
    images = torch.rand(3, 2, 5, 4, generator=generator(), dtype=torch.float64)
    random = RandomFilter(size=size, sigma_max=0.5, upstream_shift=shift)
    draws = random.sample(images.shape, generator(1))
    result = random.apply(images, draws)
    for n in range(3):
        kernel = draws.sigma[n].double() * draws.normals[n].double()
        kernel[math.ceil(size / 2) if shift else size // 2, math.ceil(size / 2) if shift else size // 2] += 1
        for c in range(2):
            torch.testing.assert_close(result[n, c], by_hand(images[n, c], kernel), rtol=0, atol=1e-6)
    torch.testing.assert_close(random.apply(images.float(), draws).double(), result, rtol=0, atol=1e-5)


def test_sigma_zero_is_the_identity():
    images = torch.rand(4, 3, 5, 6, generator=generator())
    assert torch.equal(RandomFilter(sigma_max=0.0)(images, generator=generator()), images)


def test_the_published_fault_moves_the_image_by_a_pixel_along_both_axes():
    images = torch.rand(2, 3, 5, 5, generator=generator())
    moved = RandomFilter(sigma_max=0.0, upstream_shift=True)(images, generator=generator())
    assert torch.equal(moved[:, :, :-1, :-1], images[:, :, 1:, 1:])
    assert not moved[:, :, -1].any()
    assert not moved[:, :, :, -1].any()


def test_sigma_is_uniform_and_the_kernel_standard_normal_per_image():
    draws = RandomFilter(sigma_max=4.0).sample(torch.Size([20_000, 3, 4, 4]), generator())
    assert draws.sigma.shape == (20_000,)
    assert draws.normals.shape == (20_000, 3, 3)
    assert draws.sigma.min() >= 0
    for quantile in (0.1, 0.5, 0.9):
        assert abs((draws.sigma < 4 * quantile).float().mean().item() - quantile) < 0.018
    assert abs(draws.normals.mean().item()) < 0.012
    assert abs(draws.normals.std().item() - 1) < 0.01


def test_nan_becomes_white():
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 2, 2] = float("nan")
    draws = FilterDraws(sigma=torch.zeros(1), normals=torch.zeros(1, 3, 3))
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1
    assert torch.equal(RandomFilter().apply(images, draws)[0, 0], expected)


def test_the_result_is_clipped():
    changed = RandomFilter()(torch.rand(4, 3, 8, 8), generator=generator())
    assert changed.min() == 0
    assert changed.max() == 1


def test_images_do_not_influence_each_other_also_where_they_are_worked_on_in_blocks(monkeypatch):
    images = torch.rand(5, 3, 8, 8, generator=generator())
    draws = RandomFilter().sample(images.shape, generator(1))
    together = RandomFilter().apply(images, draws)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = FilterDraws(sigma=draws.sigma[order], normals=draws.normals[order])
    torch.testing.assert_close(RandomFilter().apply(images[order], shuffled), together[order], rtol=0, atol=1e-5)
    monkeypatch.setattr("robust_augs._draws.BUDGET", 2 * 3 * 3 * 64)  # two images at a time
    torch.testing.assert_close(RandomFilter().apply(images, draws), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 1}, "size must be odd and at least 3, got 1"),
        ({"size": 4}, "size must be odd and at least 3, got 4"),
        ({"sigma_max": -1.0}, "sigma_max must be a finite number of at least 0, got -1.0"),
        ({"sigma_max": float("inf")}, "sigma_max must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomFilter(**settings)
