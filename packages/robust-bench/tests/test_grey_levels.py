"""Rounding to grey levels inside a ball."""

import itertools

import pytest
import torch
from robust_bench.grey_levels import distance, from_levels, length, radius, rounded_inside, to_levels

NORMS = ("Linf", "L2", "L1")


def exact_length(norm, change):
    """In whole numbers; the L2 norm squared."""
    sizes = [abs(int(value)) for value in change.flatten()]
    return {"Linf": max(sizes), "L1": sum(sizes), "L2": sum(size * size for size in sizes)}[norm]


def test_all_levels_survive_the_way_to_images_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_levels(from_levels(levels)), levels)


def test_images_between_levels_are_refused():
    with pytest.raises(ValueError, match="not of 8 bits"):
        to_levels(torch.full((1, 1, 1, 1), 0.5))


def test_every_eps_of_whole_levels_is_whole():
    assert [radius(level / 255) for level in range(256)] == list(range(256))
    assert radius(0.0157) == pytest.approx(4.0035)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_rounded_images_lie_in_ball_and_box(norm, spread):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (5, 3, 6, 6), generator=generator, dtype=torch.uint8)
    adversarial = (from_levels(levels) + torch.randn(5, 3, 6, 6, generator=generator) * spread / 255).clamp(0, 1)
    for allowed in (0, 1, 3.7, 8, 100):
        rounded = rounded_inside(norm, allowed / 255, from_levels(levels), adversarial)
        assert rounded.dtype == torch.uint8
        for some, others in zip(levels, rounded, strict=True):
            assert exact_length(norm, others.int() - some.int()) <= (allowed**2 if norm == "L2" else allowed) + 1e-6


def test_under_linf_each_pixel_gets_the_nearest_level_inside():
    levels = torch.tensor([10, 10, 10, 10, 250], dtype=torch.uint8).reshape(1, 1, 1, 5)
    adversarial = torch.tensor([14.0, 13.6, 12.4, 6.2, 255.0]).reshape(1, 1, 1, 5) / 255
    rounded = rounded_inside("Linf", 4 / 255, from_levels(levels), adversarial)
    assert rounded.flatten().tolist() == [14, 14, 12, 6, 254]


def test_under_l2_nothing_as_short_goes_farther_along_the_attack():
    """Against all changes of whole levels, by trying them."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.tensor([0, 255, 1, 100], dtype=torch.uint8).reshape(1, 1, 2, 2)
    steps = torch.tensor(list(itertools.product(range(-5, 6), repeat=4)))
    ends = steps + levels.flatten().long()
    inside = steps[((ends >= 0) & (ends <= 255)).all(dim=1)].double()
    for allowed in (1.0, 2.0, 2.5, 4.0):
        for _ in range(10):
            change = torch.randn(4, generator=generator, dtype=torch.float64)
            change *= allowed / change.norm()
            adversarial = ((levels.double() + change.reshape(levels.shape)).clamp(0, 255) / 255).float()
            wanted = (adversarial.double() * 255 - levels).flatten()
            found = (rounded_inside("L2", allowed / 255, from_levels(levels), adversarial).double() - levels).flatten()
            as_short = inside[inside.square().sum(dim=1) <= found.square().sum()]
            assert float(found @ wanted) >= float((as_short @ wanted).max()) - 1e-4
            longer = inside[inside.square().sum(dim=1) <= allowed**2 + 1e-6]
            assert float(found @ wanted) >= 0.5 * float((longer @ wanted).max())


def test_a_small_change_of_many_pixels_survives_under_l2():
    """The nearest levels would be those of the clean image."""
    levels = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    direction = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    adversarial = from_levels(levels) + direction / direction.norm() * 5 / 255
    assert torch.equal((adversarial * 255).round().to(torch.uint8), levels)
    rounded = rounded_inside("L2", 5 / 255, from_levels(levels), adversarial)
    assert distance("L2", levels, rounded).item() == pytest.approx(5 / 255, rel=0.02)
    change = rounded.double() - levels
    assert bool((change * direction >= 0).all())


def test_an_image_that_was_not_attacked_stays():
    levels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for norm in NORMS:
        assert torch.equal(rounded_inside(norm, 8 / 255, from_levels(levels), from_levels(levels)), levels)


def test_lengths_and_distances():
    change = torch.tensor([3.0, -4.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    assert [length(norm, change).item() for norm in NORMS] == [4, 25, 7]
    one, other = (torch.tensor([[[[low, 250]]]], dtype=torch.uint8) for low in (3, 0))
    assert distance("L2", one, other).item() == 3 / 255
