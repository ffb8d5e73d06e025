import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from robust_augs._resample import Boxes
from robust_augs.three_augment import CHANGES, ThreeAugment, blur, grey
from torchvision.transforms.v2 import functional


def natural(count=2, side=40):
    """Smooth images with edges, of float64."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side // 8, side // 8, dtype=torch.float64, generator=random)
    return torch.nn.functional.interpolate(images, size=(side, side), mode="bicubic").clamp(0, 1)


def plain(images, *, change=None, **changed):
    """Draws that leave everything as it is but for `change`, of which the blur has sigma 0 unless given."""
    count, _, height, width = images.shape
    given = {
        "boxes": Boxes(
            top=torch.zeros(count, dtype=torch.int64),
            left=torch.zeros(count, dtype=torch.int64),
            height=torch.full((count,), height),
            width=torch.full((count,), width),
        ),
        "flipped": torch.zeros(count, dtype=torch.bool),
        "change": torch.full((count,), CHANGES.index(change or "blur")),
        "sigma": torch.zeros(count),
        "factors": torch.ones(count, 3),
        "order": torch.arange(3).expand(count, 3),
    }
    drawn = ThreeAugment(size=height).sample(images.shape)
    return dataclasses.replace(drawn, **(given | changed))


def test_draws_of_nothing_leave_the_images():
    images = natural()
    torch.testing.assert_close(ThreeAugment(size=40).apply(images, plain(images)), images, rtol=0, atol=1e-12)


def test_solarize_turns_what_is_at_least_128():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    result = ThreeAugment(size=16).apply(levels, plain(levels, change="solarize"))
    assert torch.equal(result, functional.solarize(levels, 128))


def test_greyscale_is_pillows_within_a_level():
    levels = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = ThreeAugment(size=32).apply(levels, plain(levels, change="greyscale"))
    expected = np.asarray(Image.fromarray(levels[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert np.abs(result[0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 2.0])
def test_blur_is_the_gaussian_written_out_and_near_pillows(sigma):
    images = natural(1)
    result = blur(images, torch.tensor([sigma]))
    steps = np.arange(-8, 9)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel /= kernel.sum()
    expected = images[0].numpy()
    for axis in (1, 2):
        padded = np.pad(expected, [(0, 0)] + [(8, 8) if axis == at else (0, 0) for at in (1, 2)], mode="edge")
        rows = [np.take(padded, np.arange(40) + 8 + step, axis=axis) * k for step, k in zip(steps, kernel, strict=True)]
        expected = np.sum(rows, axis=0)
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=1e-7)  # sigma is float32
    picture = Image.fromarray((images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    pillow = np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma))).astype(float).transpose(2, 0, 1)
    assert np.abs(pillow - 255 * result[0].numpy()).mean() < 1.0


def test_every_image_is_blurred_by_its_own_sigma():
    images = natural(3)
    together = blur(images, torch.tensor([0.0, 0.5, 2.0]))
    for index, sigma in enumerate((0.0, 0.5, 2.0)):
        alone = blur(images[index : index + 1], torch.tensor([sigma]))[0]
        torch.testing.assert_close(together[index], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(together[0], images[0])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)], ids=str)
def test_jitter_is_torchvisions_in_any_order(order):
    images = natural()
    factors = torch.tensor([[0.8, 1.2, 0.7], [1.3, 0.75, 1.1]], dtype=torch.float64)
    draws = plain(images, factors=factors, order=torch.tensor(order).expand(2, 3))
    result = ThreeAugment(size=40).apply(images, draws)
    changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for image, own, found in zip(images, factors, result, strict=True):
        expected = image
        for which in order:
            expected = changes[which](expected, float(own[which]))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)  # torchvision's luma has four digits


def test_flips_and_the_simple_crop():
    images = natural()
    draws = plain(images, flipped=torch.tensor([True, False]))
    result = ThreeAugment(size=40).apply(images, draws)
    torch.testing.assert_close(result, torch.stack([images[0].flip(2), images[1]]), rtol=0, atol=1e-12)
    corner = Boxes(**{name: torch.full((2,), {"height": 40, "width": 40}.get(name, 0)) for name in vars(draws.boxes)})
    result = ThreeAugment(size=40, crop="simple").apply(images, plain(images, boxes=corner))
    padded = torch.nn.functional.pad(images, [4] * 4, mode="reflect")
    torch.testing.assert_close(result, padded[:, :, :40, :40], rtol=0, atol=1e-6)


@pytest.mark.parametrize("crop", ["resized", "simple"])
def test_exactly_one_change_each_as_likely_and_boxes_inside(crop):
    augmentation = ThreeAugment(size=24, crop=crop)
    draws = augmentation.sample(torch.Size([6000, 3, 32, 48]), torch.Generator().manual_seed(0))
    assert (torch.bincount(draws.change) / 6000 - 1 / 3).abs().max() < 0.02
    assert abs(draws.flipped.float().mean() - 0.5) < 0.02
    for found, low, high in ((draws.factors, 0.7, 1.3), (draws.sigma, 0.1, 2.0)):
        assert low <= found.min() < low + 0.01
        assert high - 0.01 < found.max() <= high
    assert torch.equal(draws.order.sort(dim=1).values, torch.arange(3).expand(6000, 3))
    area = draws.boxes.height * draws.boxes.width / (32 * 48)
    assert crop == "simple" or (0.05 < area.min() < 0.1 and area.max() > 0.85)
    height, width = (32, 48) if crop == "resized" else (24 + 8, 36 + 8)
    assert (draws.boxes.top + draws.boxes.height <= height).all()
    assert (draws.boxes.left + draws.boxes.width).max() == width


def test_the_published_settings():
    assert ThreeAugment.resized == ThreeAugment(size=224, crop="resized", jitter=0.3)
    assert ThreeAugment.simple == ThreeAugment(size=224, crop="simple", jitter=0.3)


@pytest.mark.parametrize("crop", ["resized", "simple"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_laws_of_all_augmentations(crop, dtype, count):
    random = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (count, 3, 20, 28), dtype=torch.uint8, generator=random)
    images = levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)
    augmentation, before, state = ThreeAugment(size=16, crop=crop), images.clone(), torch.get_rng_state()
    draws = augmentation.sample(images.shape, torch.Generator().manual_seed(1))
    result = augmentation(images, generator=torch.Generator().manual_seed(1))
    assert result.shape == (count, 3, 16, 16)
    assert result.dtype == dtype
    assert torch.equal(result, augmentation.apply(images, draws))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    if dtype == torch.uint8:
        floats = augmentation.apply(images.float() / 255, draws)
        assert torch.equal(result, (floats * 255).round().to(torch.uint8))


def test_grey_images_and_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="three colours"):
        ThreeAugment()(torch.rand(1, 1, 32, 32))
    for settings, message in (
        ({"crop": "none"}, "crop must be"),
        ({"size": 4}, "size must be more than 4"),
        ({"jitter": 1.1}, "jitter must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            ThreeAugment(**settings)


def test_luma_weights_sum_to_one():
    torch.testing.assert_close(grey(torch.full((1, 3, 2, 2), 0.3)), torch.full((1, 1, 2, 2), 0.3))
