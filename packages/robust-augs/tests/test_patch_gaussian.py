import dataclasses

import pytest
import torch
from robust_augs.patch_gaussian import PatchGaussian

GREY = torch.full((3, 3, 12, 16), 0.5)


def draws_for(augmentation, images, **changed):
    drawn = augmentation.sample(images.shape, torch.Generator().manual_seed(0))
    return dataclasses.replace(drawn, **{name: torch.tensor(value) for name, value in changed.items()})


def test_the_noise_is_inside_the_square_alone_which_may_stick_out():
    draws = draws_for(PatchGaussian(), GREY, top=[2, -3, 0], left=[4, 14, 0], size=[5, 5, 0], sigma=[0.1, 0.2, 0.3])
    result = PatchGaussian().apply(GREY, draws)
    expected = GREY.clone()
    for image, rows, columns, sigma in ((0, slice(2, 7), slice(4, 9), 0.1), (1, slice(0, 2), slice(14, 16), 0.2)):
        inside = (image, slice(None), rows, columns)
        expected[inside] = (0.5 + sigma * draws.noise[inside]).clamp(0, 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert torch.equal(result[2], GREY[2])


def test_a_square_of_twice_the_side_is_noise_everywhere():
    images = torch.full((200, 1, 8, 8), 0.5)
    changed = PatchGaussian(patch_size=16, sigma=0.1)(images, generator=torch.Generator().manual_seed(0)) - 0.5
    assert (changed != 0).all()
    assert abs(changed.std() - 0.1) < 0.002
    assert abs(changed.mean()) < 0.003


def test_the_centre_is_uniform_and_ranges_are_drawn_from():
    augmentation = PatchGaussian(patch_size=(3, 6), sigma=(0.2, 0.4))
    draws = augmentation.sample(torch.Size([8000, 1, 4, 5]), torch.Generator().manual_seed(0))
    row, column = draws.top + draws.size // 2, draws.left + draws.size // 2
    for values, number in ((row, 4), (column, 5), (draws.size - 3, 4)):
        counts = torch.bincount(values, minlength=number)
        assert len(counts) == number
        assert (counts / 8000 - 1 / number).abs().max() < 0.02
    assert 0.2 <= draws.sigma.min() < 0.201
    assert 0.399 < draws.sigma.max() <= 0.4


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_probability_of_a_square(probability):
    augmentation = PatchGaussian(probability=probability)
    draws = augmentation.sample(torch.Size([5000, 1, 2, 2]), torch.Generator().manual_seed(0))
    assert abs((draws.size > 0).float().mean() - probability) < 0.03


def test_ranges_may_be_lists():
    assert PatchGaussian(patch_size=[1, 250], sigma=[0.0, 1.0]) == PatchGaussian.imagenet
    hash(PatchGaussian(patch_size=[1, 250]))


def test_the_published_settings():
    assert PatchGaussian.cifar == PatchGaussian(patch_size=25, sigma=0.1)
    assert PatchGaussian.imagenet == PatchGaussian(patch_size=(1, 250), sigma=(0.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"patch_size": (5, 4)}, "patch_size must be at least 1"),
        ({"sigma": -0.1}, "sigma must be a finite number"),
        ({"sigma": (0.5, 0.4)}, "sigma must be a finite number"),
        ({"sigma": float("nan")}, "sigma must be a finite number"),
        ({"probability": 2}, "probability must lie in"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchGaussian(**settings)
