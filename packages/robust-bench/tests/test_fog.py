"""Fog: against the published code, a landscape grown point by point, and closed forms."""

import json

import numpy as np
import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import PRESETS, Draws, apply, corrupt, sample
from robust_bench.corruptions.fog import _levels, fog, grow, side_of_cloud

SEVERITIES = (1, 2, 3, 4, 5)


def levels(side):
    """From coarse to fine: step of the grid; where each lattice starts and its shifts lie, in the published order."""
    step = side
    while step > 1:
        half, size = step // 2, side // step
        low, high = slice(size), slice(size, 2 * size)
        yield step, (((half, half), (high, high)), ((0, half), (low, high)), ((half, 0), (high, low)))
        step = half


def published_shifts(seed, side, decay):
    """What the published code draws, divided by its bound and laid out as `grow` takes it."""
    random, shifts, bound = np.random.RandomState(seed), np.zeros((side, side)), 100.0
    for step, lattices in levels(side):
        for _, block in lattices:
            shifts[block] = random.uniform(-bound, bound, (side // step, side // step)) / bound
        bound /= decay
    return torch.from_numpy(shifts)


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_equals_the_published_code_with_its_draws(published, apart, severity, preset):
    clean, expected, numbers = published("fog", severity, preset)
    decay, side = PRESETS[preset].constants["fog"][severity - 1][1], side_of_cloud(*clean.shape[2:])
    shifts = torch.stack([published_shifts(1000 * number + severity, side, decay) for number in numbers])
    draws = Draws(count=len(numbers), fields={"shifts": shifts})
    largest, _, share = apart(apply("fog", clean, severity, draws, preset=preset), expected)
    assert largest <= 1
    assert share < 2e-3
    exact = apply("fog", clean, severity, draws, preset=preset, precision="double")
    largest, _, share = apart(exact, expected)
    assert largest <= 1
    assert share < 2e-4


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("severity", SEVERITIES)
def test_own_draws_have_the_published_statistics(published, shared, severity):
    """Averages over the images, since fog varies much: PSNR within 1.5 dB, log spectrum within 0.2 and then 0.05."""
    reference = json.loads((shared / "corruptions" / "stats_random.json").read_text())
    edges, entries = torch.tensor(reference["_meta"]["radial_edges"]), reference[f"fog/{severity}"]
    clean, _, _ = published("contrast", 1, "imagenet")  # of which there are all four images
    many = clean.repeat(24, 1, 1, 1)
    apart = corrupt(many, "fog", severity, variant="imagecorruptions").double() - many.double()
    psnr = (10 * torch.log10(255.0**2 / apart.square().mean(dim=(1, 2, 3)))).mean()
    assert abs(psnr - entries["psnr"]["mean"]) < 1.5
    grey = apart.mean(dim=1)
    grey -= grey.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.fftshift(torch.fft.fft2(grey).abs().square(), dim=(1, 2)) / 224**2
    steps = torch.arange(224) - 112
    ring = torch.bucketize(torch.hypot(steps[:, None].double(), steps.double()), edges.double(), right=True) - 1
    for band in range(9):
        found = torch.log10(power[:, ring == band].mean(dim=1)).mean()
        assert abs(found - entries[f"logspec{band}"]["mean"]) < (0.2 if band == 0 else 0.05), band


def grown_point_by_point(shifts, decay):
    side, bound = len(shifts), 100.0
    heights = np.zeros((side, side))
    for step, lattices in levels(side):
        half = step // 2
        for lattice, ((first_row, first_column), block) in enumerate(lattices):
            corners = [(-half, -half), (-half, half), (half, -half), (half, half)]
            edges = [(-half, 0), (half, 0), (0, -half), (0, half)]
            for row in range(first_row, side, step):
                for column in range(first_column, side, step):
                    around = corners if lattice == 0 else edges
                    mean = sum(heights[(row + down) % side, (column + right) % side] for down, right in around) / 4
                    heights[row, column] = mean + bound**2 * shifts[block][row // step, column // step]
        bound /= decay
    return heights


@pytest.mark.parametrize("decay", [1.4, 3.0])
@pytest.mark.parametrize("side", [16, 32, 128])
def test_grows_as_point_by_point(side, decay):
    shifts = np.random.default_rng(side).uniform(-1, 1, (2, side, side))
    expected = np.stack([grown_point_by_point(one, decay) for one in shifts])
    found = grow(torch.from_numpy(shifts), decay)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    short = grow(torch.from_numpy(shifts).float(), decay)
    np.testing.assert_allclose(short.numpy(), expected, rtol=0, atol=0.02)  # heights reach 10,000


def test_grows_alike_in_numpy_and_torch():
    generator = torch.Generator().manual_seed(0)
    heights, shifts = torch.rand(2, 9, 9, generator=generator), torch.rand(2, 64, 64, generator=generator)
    found = _levels(heights.numpy(), shifts.numpy(), lambda shape: np.empty(shape, np.float32))
    expected = _levels(heights, shifts, heights.new_empty)
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_the_landscape_is_linear_and_its_first_height_is_zero():
    first, second = torch.rand(2, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).unbind()
    torch.testing.assert_close(grow(first, 2.0) + 2 * grow(second, 2.0), grow(first + 2 * second, 2.0))
    assert grow(first, 2.0)[0, 0, 0] == 0


@pytest.mark.parametrize("size", [(32, 32), (40, 100), (129, 33)])
def test_a_plain_image_shows_the_cloud(size):
    """(v + c h) v / (v + c) with heights h that reach from 0 to 1 over the whole cloud."""
    images = torch.full((2, 3, *size), 0.6, dtype=torch.float64)
    draws = sample("fog", 3, images.shape, random=ImageRandom(0))
    out = fog(images, (2.5, 1.7), draws)
    side = side_of_cloud(*size)
    heights = grow(draws.fields["shifts"].double(), 1.7)
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    heights = (heights / heights.amax(dim=(1, 2), keepdim=True))[:, : size[0], : size[1]]
    assert draws.fields["shifts"].shape == (2, side, side)
    torch.testing.assert_close(out, ((0.6 + 2.5 * heights) * 0.6 / 3.1)[:, None].expand_as(images))


def test_black_stays_black_and_the_brightest_is_never_exceeded(pictures):
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(corrupt(black, "fog", 5, "cifar"), black)
    images = pictures() // 2
    assert (corrupt(images, "fog", 5, "cifar").amax(dim=(1, 2, 3)) <= images.amax(dim=(1, 2, 3))).all()


def test_a_flat_cloud_is_no_cloud():
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    draws = Draws(count=1, fields={"shifts": torch.zeros(1, 32, 32)})
    largest = images.max()
    torch.testing.assert_close(fog(images, (1.0, 2.0), draws), images * largest / (largest + 1.0))


@pytest.mark.parametrize(("size", "side"), [((32, 32), 32), ((33, 20), 64), ((224, 224), 256), ((256, 257), 512)])
def test_the_cloud_covers_the_image(size, side):
    assert side_of_cloud(*size) == side
