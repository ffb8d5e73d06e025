import pytest
import torch
from robust_attacks import ImageRandom
from robust_attacks._patches import Patches, random_patches


def test_patches_are_numbered_row_by_row():
    grid = Patches.of("A", torch.zeros(1, 3, 4, 6), 2)
    assert (grid.rows, grid.columns, grid.count) == (2, 3, 6)
    mask = grid.mask(torch.tensor([[1], [5]]))
    assert mask.shape == (2, 1, 4, 6)
    assert mask[0, 0].nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert mask[1, 0].nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_sums_are_those_of_the_pixels_of_each_patch():
    values = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = Patches.of("A", values, 2)
    for number in range(grid.count):
        alone = grid.mask(torch.full((2, 1), number))
        torch.testing.assert_close(grid.sums(values)[:, number], (values * alone).sum(dim=(1, 2, 3)))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 3)])
def test_images_that_do_not_divide_into_patches_are_refused(shape):
    with pytest.raises(
        ValueError, match=rf"images of {shape[0]} x {shape[1]} pixels do not divide into patches of 4 x 4"
    ):
        Patches.of("A", torch.zeros(1, 1, *shape), 4)


def test_random_patches_are_uniform_without_replacement_and_belong_to_the_image():
    images, random = torch.zeros(4000, 1, 8, 8), ImageRandom(3, torch.arange(4000))
    mask = random_patches("A", images, random, 2, 0.2)  # round(0.2 * 16) = 3 patches of 4 pixels
    assert (mask.sum(dim=(1, 2, 3)) == 12).all()
    cells = mask[:, 0, ::2, ::2].flatten(1)
    expected = 4000 * 3 / 16
    assert float(((cells.sum(dim=0) - expected) ** 2 / expected).sum()) < 60  # chi-square of 15 degrees, p ~ 1e-6
    assert torch.equal(random_patches("A", images[7:9], random[7:9], 2, 0.2), mask[7:9])
    larger = random_patches("B", images, random, 2, 0.5)
    assert (larger | ~mask).all()  # a larger share adds patches to the same ones


def test_a_share_is_rounded_and_must_not_be_none():
    grid = Patches.of("A", torch.zeros(1, 1, 224, 224), 16)
    assert grid.share("A", 0.1) == 20
    with pytest.raises(ValueError, match=r"A: a share of 0.1 of 4 patches of 16 x 16 pixels rounds to none"):
        Patches.of("A", torch.zeros(1, 1, 32, 32), 16).share("A", 0.1)
