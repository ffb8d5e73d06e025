"""Frost: crops of known textures, the published code, and the published statistics with made textures."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from robust_attacks import ImageRandom
from robust_bench.corruptions import PRESETS, Draws, SizeWarning, apply, corrupt, sample
from robust_bench.corruptions.frost import frost_corruption
from robust_bench.corruptions.frost_textures import textures
from robust_bench.corruptions.levels import truncate, unit

SEVERITIES = (1, 2, 3, 4, 5)


@pytest.fixture
def folder(tmp_path):
    """Three textures that tell where they were cut: red counts rows, green columns, blue the texture."""
    for number, (height, width) in enumerate([(60, 80), (50, 120), (100, 41)]):
        rows, columns = np.mgrid[:height, :width]
        levels = np.stack([rows, columns, np.full_like(rows, 100 * number)], axis=-1).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / f"texture{number}.png")
    return tmp_path


def place(height, width):
    """Rows and columns of a crop, counted from its corner."""
    return torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")


def test_adds_the_crop_that_was_drawn(folder):
    images = torch.rand(4, 3, 40, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index, corner = torch.tensor([2, 0, 1, 1]), torch.tensor([[59, 4], [0, 0], [9, 83], [5, 6]])
    corruption = frost_corruption(folder)
    out = corruption.apply(images, (0.7, 0.6, 1), Draws(count=4, fields={"texture": index, "corner": corner}))
    rows, columns = place(40, 36)
    for image, found, which, (top, left) in zip(images, out, index.tolist(), corner.tolist(), strict=True):
        crop = torch.stack([rows + top, columns + left, torch.full_like(rows, 100 * which)]).double()
        torch.testing.assert_close(found, 0.7 * image + 0.6 * crop / 255)


def test_every_place_that_fits_is_drawn_and_no_other(folder):
    """Start rows are 0..size-crop-1 in the published code: the last one that would fit is never drawn."""
    corruption = frost_corruption(folder)
    keys = ImageRandom(0, torch.arange(3000)).keys("test")
    drawn = corruption.sample(lambda _: keys, (3, 40, 38), (1, 0.4, 1))
    index, corner = drawn["texture"], drawn["corner"]
    assert torch.bincount(index, minlength=3).tolist() == pytest.approx([1000] * 3, abs=4.9 * (2000 / 3) ** 0.5)
    for which, (rows, columns) in enumerate([(20, 42), (10, 82), (60, 3)]):
        corners = corner[index == which]
        assert corners.amin(dim=0).tolist() == [0, 0]
        assert corners[:, 0].unique().tolist() == list(range(rows))
        assert corners[:, 1].max() == columns - 1
        middle = corners.double().mean(dim=0) - torch.tensor([rows - 1, columns - 1]) / 2
        bounds = 4.9 * torch.tensor([rows, columns]) / (12 * len(corners)) ** 0.5
        assert (middle.abs() < bounds).all()


def test_the_crop_does_not_depend_on_the_batch(folder, pictures):
    images = pictures()
    whole = corrupt(images, "frost", 3, "cifar", frost=folder)
    some = torch.tensor([4, 1])
    assert torch.equal(corrupt(images[some], "frost", 3, "cifar", frost=folder, ids=some), whole[some])


@pytest.mark.parametrize("variant", ["imagenet_c", "imagecorruptions"])
def test_large_images_are_covered(folder, pictures, variant):
    images = pictures(count=20, size=(150, 130))
    corruption = frost_corruption(folder, variant)
    draws = Draws(count=20, fields=corruption.sample(lambda _: torch.arange(20) * 7919, (3, 150, 130), (0.0, 1.0, 1)))
    out = corruption.apply(unit(images), (0.0, 1.0, 1), draws) * 255
    blue = torch.tensor([0.0, 100.0, 200.0])[draws.fields["texture"]]
    torch.testing.assert_close(out[:, 2], blue[:, None, None].expand(-1, 150, 130))  # nothing of the filling
    found = textures(folder, variant, 1, 150, 130, images.device)
    assert (found.sizes > torch.tensor([150, 130])).all()


@pytest.mark.skipif(importlib.util.find_spec("imagecorruptions") is None, reason="needs an installed imagecorruptions")
@pytest.mark.shared_data
@pytest.mark.parametrize(("preset", "variant"), [("imagenet", "imagecorruptions"), ("cifar", "imagenet_c")])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_equals_the_published_code_with_its_textures_and_draws(published, apart, severity, preset, variant):
    clean, expected, numbers = published("frost", severity, preset)
    height, width = clean.shape[2:]
    constant = PRESETS[preset].constants["frost"][severity - 1]
    sizes = textures("package", variant, constant[2], height, width, clean.device).sizes.tolist()
    index, corner = [], []
    for number in numbers:
        random = np.random.RandomState(1000 * number + severity)
        index.append(random.randint(5))
        rows, columns = sizes[index[-1]]
        corner.append([random.randint(0, rows - height), random.randint(0, columns - width)])
    draws = Draws(count=len(numbers), fields={"texture": torch.tensor(index), "corner": torch.tensor(corner)})
    corruption = frost_corruption("package", variant)
    for dtype in (torch.float32, torch.float64):
        largest, mean, _ = apart(truncate(corruption.apply(unit(clean, dtype), constant, draws)), expected)
        assert largest <= 1
        assert mean < 0.1


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("severity", SEVERITIES)
def test_made_textures_have_the_published_statistics(published, shared, severity):
    """Over 100 images: mean change within 10 levels, PSNR within 1.5 dB, log spectrum within 0.2.

    Every texture serves as often as the others; which the 16 published outputs drew moves their mean by 7 levels.
    """
    reference = json.loads((shared / "corruptions" / "stats_random.json").read_text())
    edges, entries = torch.tensor(reference["_meta"]["radial_edges"]), reference[f"frost/{severity}"]
    clean, _, _ = published("contrast", 1, "imagenet")  # of which there are all four images
    many = clean.repeat_interleave(25, dim=0)
    constant = PRESETS["imagenet"].constants["frost"][severity - 1]
    corruption = frost_corruption(variant="imagecorruptions")
    fields = corruption.sample(lambda _: ImageRandom(severity, torch.arange(100)).keys("test"), (3, 224, 224), constant)
    sizes = textures("procedural", "imagecorruptions", 1, 224, 224, many.device).sizes
    assert (sizes == sizes[0]).all()  # so that a corner serves any texture
    draws = Draws(count=100, fields=fields | {"texture": torch.arange(100) % 5})
    apart = truncate(corruption.apply(unit(many), constant, draws)).double() - many.double()
    assert abs(apart.mean() - entries["mean_diff"]["mean"]) < 10
    psnr = (10 * torch.log10(255.0**2 / apart.square().mean(dim=(1, 2, 3)))).mean()
    assert abs(psnr - entries["psnr"]["mean"]) < 1.5
    grey = apart.mean(dim=1)
    grey -= grey.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.fftshift(torch.fft.fft2(grey).abs().square(), dim=(1, 2)) / 224**2
    steps = torch.arange(224) - 112
    ring = torch.bucketize(torch.hypot(steps[:, None].double(), steps.double()), edges.double(), right=True) - 1
    for band in range(9):
        found = torch.log10(power[:, ring == band].mean(dim=1)).mean()
        assert abs(found - entries[f"logspec{band}"]["mean"]) < 0.2, band


def test_draws_do_not_depend_on_the_images(pictures):
    images = pictures(count=3, size=(64, 48))
    draws = sample("frost", 2, images.shape, random=ImageRandom(0), preset="tiny_imagenet")
    assert draws.fields.keys() == {"texture", "corner"}
    first = apply("frost", images, 2, draws, preset="tiny_imagenet")
    dark = apply("frost", images * 0, 2, draws, preset="tiny_imagenet")
    assert (first >= dark).all()


def test_a_wrong_source_is_an_error_that_teaches(pictures):
    with pytest.raises(ValueError, match=r"'procedural', 'package' or a folder .* no nowhere"):
        corrupt(pictures(), "frost", 3, "cifar", frost="nowhere")
    with pytest.warns(SizeWarning), pytest.raises(ValueError, match="'procedural', 'package' or a folder"):
        corrupt(pictures(), "frost", 3, frost="nowhere")
