"""Glass blur against the loop that it stands for."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions import Draws
from robust_bench.corruptions.glass import glass_blur, sample_offsets

ALONE = 0.05  # a sigma that leaves the image as it is


def looped(image, offsets, distance, passes):
    """Copy pixel by pixel, in place, from the bottom right, as published; image (H, W, C), offsets (3, 2, H, W)."""
    image = image.copy()
    height, width = image.shape[:2]
    for step in range(passes):
        for row in range(height - distance, distance, -1):
            for column in range(width - distance, distance, -1):
                right, down = offsets[step, :, row, column].tolist()
                image[row, column] = image[row + down, column + right]
    return image


def copied(levels, offsets, distance, passes):
    draws = Draws(count=len(levels), fields={"offsets": offsets})
    return glass_blur(levels.double() / 255, (ALONE, distance, passes), draws).mul(255).round().to(torch.uint8)


@pytest.mark.parametrize(("distance", "passes"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 2)])
@pytest.mark.parametrize("size", [(32, 32), (19, 45)], ids=str)
def test_pixels_are_copied_as_by_the_loop(distance, passes, size):
    generator = torch.Generator().manual_seed(distance)
    levels = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8, generator=generator)
    offsets = torch.randint(-distance, distance, (3, 3, 2, *size), dtype=torch.int8, generator=generator)
    found = copied(levels, offsets, distance, passes)
    for image, drawn, result in zip(levels, offsets, found, strict=True):
        expected = looped(image.permute(1, 2, 0).numpy(), drawn.numpy(), distance, passes)
        assert np.array_equal(result.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (1, 1), (-2, 1), (0, 0), (-1, 0)])
def test_the_longest_chains_are_followed_to_their_end(right, down):
    levels = torch.arange(33 * 700).remainder(251).to(torch.uint8).view(1, 1, 33, 700)
    offsets = torch.zeros(1, 3, 2, 33, 700, dtype=torch.int8)
    offsets[:, :, 0], offsets[:, :, 1] = right, down
    expected = looped(levels[0].permute(1, 2, 0).numpy(), offsets[0].numpy(), 2, 1)
    assert np.array_equal(copied(levels, offsets, 2, 1)[0, 0].numpy(), expected[..., 0])


def test_offsets_are_uniform_and_fit_every_severity():
    keys = torch.arange(4) * 7919
    for constant in ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)):
        _, distance, passes = constant
        offsets = sample_offsets(lambda _: keys, (3, 100, 120), constant)["offsets"]
        assert offsets.shape == (4, 3, 2, 100, 120)
        assert offsets.dtype == torch.int8
        assert not offsets[:, passes:].any()
        drawn = offsets[:, :passes]
        counts = torch.bincount((drawn + distance).flatten().long(), minlength=2 * distance)
        assert len(counts) == 2 * distance
        expected = drawn.numel() / (2 * distance)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_draws_of_another_shape_are_refused():
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"'offsets' must have the shape \(1, 3, 2, 32, 32\)"):
        glass_blur(images, (1, 2, 3), Draws(count=1, fields={"offsets": torch.zeros(1, 2, 2, 32, 32)}))
