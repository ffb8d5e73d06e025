"""Elastic transforms: parity with both published codes, scipy's interpolation, and moves of known size."""

import numpy as np
import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import PRESETS, Draws, apply, sample
from robust_bench.corruptions.elastic import elastic_transform, elastic_transform_without_affine
from scipy import ndimage

SEVERITIES = (1, 2, 3, 4, 5)


@pytest.mark.shared_data
@pytest.mark.parametrize("precision", ["float32", "double"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_equals_the_package_with_its_own_draws(published, apart, severity, precision):
    clean, expected, numbers = published("elastic_transform", severity, "imagenet")
    shifts = []
    for number in numbers:
        random, bound = np.random.RandomState(1000 * number + severity), 0.005 * 224
        shifts.append(np.stack([random.uniform(-bound, bound, (224, 224)) for _ in range(2)]) / bound)
    draws = Draws(count=len(numbers), fields={"shifts": torch.from_numpy(np.stack(shifts))})
    found = apply("elastic_transform", clean, severity, draws, variant="imagecorruptions", precision=precision)
    largest, _, share = apart(found, expected)
    assert largest <= 1
    assert share < 1e-3


@pytest.mark.shared_data
@pytest.mark.parametrize("precision", ["float32", "double"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_equals_the_original_script_with_its_own_draws(published, apart, severity, precision):
    clean, expected, numbers = published("elastic_transform", severity, "cifar")
    jitter = PRESETS["cifar"].constants["elastic_transform"][severity - 1][2]
    corners, shifts = [], []
    for number in numbers:
        random = np.random.RandomState(1000 * number + severity)
        corners.append(random.uniform(-jitter, jitter, (3, 2)))
        shifts.append(np.stack([random.uniform(-1, 1, (32, 32)) for _ in range(2)]))
    fields = {"corners": torch.from_numpy(np.stack(corners)), "shifts": torch.from_numpy(np.stack(shifts))}
    draws = Draws(count=len(numbers), fields=fields)
    largest, _, share = apart(
        apply("elastic_transform", clean, severity, draws, preset="cifar", precision=precision), expected
    )
    assert largest <= 1
    assert share < 1e-3


def draws_of(corners, shifts):
    return Draws(count=len(shifts), fields={"corners": corners, "shifts": shifts})


@pytest.mark.parametrize("size", [(40, 56), (64, 33)], ids=str)
def test_equals_scipys_interpolation_at_any_size(pictures, size):
    images = pictures(count=2, size=size).double() / 255
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(2, 3, 2, generator=generator).mul(8).sub(4).double()
    shifts = torch.rand(2, 2, *size, generator=generator, dtype=torch.float64) * 2 - 1
    alpha, sigma = 30.0, 2.5
    found = elastic_transform(images, (alpha, sigma, 4.0), draws_of(corners, shifts))

    height, width = size
    quarter, centre = min(size) // 3, np.array([width // 2, height // 2])
    fixed = centre + quarter * np.array([[1, 1], [1, -1], [-1, -1]])
    rows, columns = np.mgrid[:height, :width]
    for index in range(2):
        ones = np.ones((3, 1))
        back = np.linalg.solve(np.hstack([fixed + corners[index].numpy(), ones]), fixed)  # 3 x 2: moved -> fixed
        places = np.stack([columns, rows, np.ones(size)], axis=-1) @ back
        dx, dy = (
            ndimage.gaussian_filter(field.numpy(), sigma, mode="reflect", truncate=3) * alpha for field in shifts[index]
        )
        for channel in range(3):
            moved = ndimage.map_coordinates(
                images[index, channel].numpy(), [places[..., 1], places[..., 0]], order=1, mode="mirror"
            )
            expected = ndimage.map_coordinates(moved, [rows + dy, columns + dx], order=1, mode="reflect")
            assert np.abs(found[index, channel].numpy() - expected).max() < 1e-12


def test_three_corners_that_move_alike_move_the_image(pictures):
    images = pictures(count=1, size=(40, 50)).double() / 255
    corners = torch.tensor([3.0, -2.0]).expand(1, 3, 2)
    out = elastic_transform(images, (0, 0, 5.0), draws_of(corners, torch.zeros(1, 2, 40, 50)))
    torch.testing.assert_close(out[:, :, :-2, 3:], images[:, :, 2:, :-3])
    torch.testing.assert_close(out[:, :, :-2, :3], images[:, :, 2:, 1:4].flip(3))  # mirrored about the first pixels


def test_equal_shifts_move_the_image(pictures):
    images = pictures(count=1, size=(40, 50)).double() / 255
    shifts = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1).expand(1, 2, 40, 50)
    draws = Draws(count=1, fields={"shifts": shifts})
    out = elastic_transform_without_affine(images, 2 / (0.005 * 40), draws)  # a shift of 1 is two pixels
    torch.testing.assert_close(out[:, :, 2:, :-1], images[:, :, :-2, 1:])
    torch.testing.assert_close(out[:, :, :2, :-1], images[:, :, :2, 1:].flip(2))  # mirrored about the border


def test_draws_are_uniform_and_bounded():
    draws = sample("elastic_transform", 1, (64, 3, 32, 32), random=ImageRandom(0), preset="cifar")
    corners, shifts = draws.fields["corners"], draws.fields["shifts"]
    assert corners.abs().max() <= 0.08 * 32
    assert corners.std().item() == pytest.approx(0.08 * 32 / 3**0.5, rel=4.9 * (0.2 / corners.numel()) ** 0.5)
    assert shifts.abs().max() < 1
    assert abs(shifts.mean()) < 4.9 / (3 * shifts.numel()) ** 0.5
    assert shifts.std().item() == pytest.approx(1 / 3**0.5, rel=4.9 * (0.2 / shifts.numel()) ** 0.5)
