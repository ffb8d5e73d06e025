import dataclasses

import pytest
import torch
from robust_augs.patchwise import Patchwise
from torchvision.transforms.v2 import InterpolationMode, functional


def patches_of(images, size):
    """Every patch in rows, one by one."""
    count, _, height, width = images.shape
    return [
        images[index, :, top : top + size, left : left + size]
        for index in range(count)
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]


def test_equals_a_loop_over_patches_with_torchvision():
    images = torch.rand(3, 3, 24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    augmentation = Patchwise(patch_size=8, probability=0.5, scale=(0.2, 1.0), sigma=0.05)
    draws = augmentation.sample(images.shape, torch.Generator().manual_seed(1))
    result = patches_of(augmentation.apply(images, draws), 8)
    assert len(result) == len(draws.cropped) == 18
    for index, (patch, noise) in enumerate(zip(patches_of(images, 8), patches_of(draws.noise, 8), strict=True)):
        expected = patch
        if draws.cropped[index]:
            box = [int(getattr(draws.boxes, name)[index]) for name in ("top", "left", "height", "width")]
            expected = functional.resized_crop(expected, *box, [8, 8], InterpolationMode.BILINEAR, antialias=True)
        if draws.noisy[index]:
            expected = expected + 0.05 * noise.double()
        if draws.flipped[index]:
            expected = expected.flip(2)
        torch.testing.assert_close(result[index], expected.clamp(0, 1), rtol=0, atol=1e-7)
    assert draws.cropped.any()
    assert not draws.cropped.all()


def test_crops_are_squares_of_15_or_16_pixels_as_published():
    draws = Patchwise().sample(torch.Size([8, 3, 224, 224]), torch.Generator().manual_seed(0))
    assert torch.equal(draws.boxes.height, draws.boxes.width)
    assert set(draws.boxes.height.tolist()) == {15, 16}
    for chosen in (draws.cropped, draws.noisy, draws.flipped):
        assert abs(chosen.float().mean() - 0.1) < 0.03
    assert abs((draws.cropped & draws.noisy).float().mean() - 0.01) < 0.01  # independent of each other


def test_a_range_may_be_a_list():
    assert Patchwise(scale=[0.85, 1.0]) == Patchwise()
    hash(Patchwise(scale=[0.85, 1.0]))


def test_nothing_happens_with_probability_zero():
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(Patchwise(probability=0.0)(images), images)


def test_flips_alone():
    images = torch.rand(1, 3, 16, 16)
    draws = Patchwise().sample(images.shape)
    nothing, all_ = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    draws = dataclasses.replace(draws, cropped=nothing, noisy=nothing, flipped=all_)
    assert torch.equal(Patchwise().apply(images, draws), images.flip(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": -1}, "probability must lie in"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"scale": (0.9, 0.8)}, "scale must be"),
        ({"sigma": -1.0}, "sigma must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Patchwise(**settings)
    with pytest.raises(ValueError, match="must divide both sides"):
        Patchwise()(torch.rand(1, 3, 30, 32))
