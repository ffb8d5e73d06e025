import math

import pytest
import torch
from robust_augs.diffeomorphism import (
    Diffeomorphism,
    DiffeomorphismDraws,
    deviations,
    sine_matrix,
    synthesise,
    temperature_range,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws_of(displacement):
    """Deform by a displacement (N, 2, H, W) that is given."""
    count = len(displacement)
    return DiffeomorphismDraws(cut=torch.full((count,), 2), temperature=torch.ones(count), displacement=displacement)


def sampled(image, x, y):
    """The bilinear value of one channel (rows of floats) at (x, y), clamped to the image, in plain Python."""
    last = len(image) - 1
    x, y = min(max(x, 0), last), min(max(y, 0), last)
    left, top = min(int(x), last - 1), min(int(y), last - 1)
    u, v = x - left, y - top
    upper = (1 - u) * image[top][left] + u * image[top][left + 1]
    lower = (1 - u) * image[top + 1][left] + u * image[top + 1][left + 1]
    return (1 - v) * upper + v * lower


@pytest.mark.parametrize(("side", "size"), [(3, 1), (7, 3), (9, 7)])
def test_the_fields_are_the_sums_over_all_waves(side, size):
    coefficients = torch.randn(2, size, 2, size, generator=generator(), dtype=torch.float64)  # (image, j, component, i)
    fields = synthesise(coefficients, sine_matrix(side, "cpu")[:, :size].double())
    for image in range(2):
        for component in range(2):
            for row in range(side):
                for column in range(side):
                    u, v = column / (side - 1), row / (side - 1)
                    expected = sum(
                        coefficients[image, j - 1, component, i - 1].item()
                        * math.sin(math.pi * i * u)
                        * math.sin(math.pi * j * v)
                        for i in range(1, size + 1)
                        for j in range(1, size + 1)
                    )
                    assert fields[image, component, row, column].item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("side", "cuts"), [(6, [2, 4]), (5, [3, 11]), (6, [4, 9, 10, 26]), (3, [2, 7])])
def test_the_covariance_is_that_of_the_published_coefficients_also_beyond_what_the_pixels_tell_apart(side, cuts):
    size = side - 2
    got = deviations(torch.tensor(cuts), size, side).double() ** 2
    points = [p / (side - 1) for p in range(side)]
    waves = torch.tensor([[math.sin(math.pi * i * u) for i in range(1, size + 1)] for u in points], dtype=torch.float64)
    for number, cut in enumerate(cuts):
        modes = [(i, j) for i in range(1, cut + 1) for j in range(1, cut + 1) if math.hypot(i, j) < cut + 0.5]
        covariance = torch.zeros(side, side, side, side, dtype=torch.float64)  # of (v, u) with (v', u')
        for i, j in modes:
            along_x = torch.tensor([math.sin(math.pi * i * u) for u in points], dtype=torch.float64)
            along_y = torch.tensor([math.sin(math.pi * j * v) for v in points], dtype=torch.float64)
            covariance += torch.einsum("a,b,c,d->abcd", along_y, along_x, along_y, along_x) / (i**2 + j**2)
        folded = torch.einsum("aj,bi,cj,di,ji->abcd", waves, waves, waves, waves, got[number])
        torch.testing.assert_close(folded, covariance, rtol=0, atol=1e-6)


def test_fewer_modes_than_pixels_are_computed_for_images_of_low_cut():
    cut = torch.tensor([2, 5])
    few, all_of_them = deviations(cut, 8, 40), deviations(cut, 38, 40)
    torch.testing.assert_close(all_of_them[:, :8, :8], few)
    assert all_of_them.count_nonzero() == few.count_nonzero()


def test_the_displacement_is_scaled_by_the_side_and_the_root_of_the_temperature():
    """With a cut of 2 there is one mode at every size, i = j = 1, whose variance is known."""
    side = 33
    draws = Diffeomorphism(cut_max=3).sample(torch.Size([6000, 1, side, side]), generator())
    centre = draws.displacement[:, :, side // 2, side // 2]
    low = draws.cut == 2
    assert low.sum() > 2000
    scaled = centre[low] / (side * draws.temperature[low].sqrt())[:, None]
    assert scaled.mean().abs() < 0.05
    torch.testing.assert_close(scaled.var(dim=0), torch.full((2,), 0.5), rtol=0.1, atol=0)
    assert abs((scaled[:, 0] * scaled[:, 1]).mean()) < 0.04  # the components are independent


def test_at_the_lowest_temperature_the_typical_displacement_is_half_a_pixel():
    """Summed over the middle of the image, exactly; the published estimate holds for high cuts."""
    side, cut = 65, torch.tensor([10, 30, 60])
    low, _ = temperature_range(cut, side)
    variance = deviations(cut, side - 2, side).double() ** 2 * (side**2 * low.double()).view(-1, 1, 1)
    squares = sine_matrix(side, "cpu").double()[side // 4 : 3 * side // 4] ** 2
    field = torch.einsum("yj,xi,nji->nyx", squares, squares, variance)
    typical = (2 * field.mean(dim=(1, 2))).sqrt()  # both components
    assert ((typical > 0.4) & (typical < 0.6)).all()


def test_the_temperatures_are_the_published_ones():
    low, high = temperature_range(torch.tensor([2, 500]), 224)
    assert low[0].item() == pytest.approx(1 / (math.pi * 224**2 * math.log(2)), rel=1e-6)
    assert high[0].item() == pytest.approx(4 / (math.pi**3 * 4 * math.log(2)), rel=1e-6)
    assert high[1] == low[1]  # never below the lowest


@pytest.mark.parametrize("side", [1, 2, 3, 8, 33])
def test_the_border_stays_in_place(side):
    draws = Diffeomorphism.cifar.sample(torch.Size([20, 3, side, side]), generator())
    for line in (draws.displacement[:, :, edge] for edge in (0, -1)):
        assert line.abs().max() < 1e-5
    for line in (draws.displacement[:, :, :, edge] for edge in (0, -1)):
        assert line.abs().max() < 1e-5
    assert (draws.displacement.abs().amax((1, 2, 3)) > 1e-3).all() == (side > 2)


def test_images_are_sampled_bilinearly_at_clamped_coordinates():
    side = 6
    images = torch.rand(3, 2, side, side, generator=generator(), dtype=torch.float64)
    displacement = torch.randn(3, 2, side, side, generator=generator(1), dtype=torch.float64) * 4
    assert (displacement.abs() > side).any()  # some lie far outside
    result = Diffeomorphism().apply(images, draws_of(displacement))
    for n in range(3):
        for c in range(2):
            rows = images[n, c].tolist()
            for y in range(side):
                for x in range(side):
                    dx, dy = displacement[n, :, y, x].tolist()
                    assert result[n, c, y, x].item() == pytest.approx(sampled(rows, x - dx, y - dy), abs=1e-10)
    single = Diffeomorphism().apply(images.float(), draws_of(displacement.float()))
    torch.testing.assert_close(single.double(), result, rtol=0, atol=1e-5)


def test_a_displacement_of_one_pixel_moves_the_image_to_the_right():
    images = torch.rand(1, 3, 5, 5, generator=generator())
    displacement = torch.stack([torch.ones(5, 5), torch.zeros(5, 5)])[None]
    moved = Diffeomorphism().apply(images, draws_of(displacement))
    torch.testing.assert_close(moved[..., 1:], images[..., :-1], rtol=0, atol=1e-5)


def test_without_displacement_the_image_stays():
    images = torch.rand(2, 3, 224, 224, generator=generator())
    torch.testing.assert_close(
        Diffeomorphism().apply(images, draws_of(torch.zeros(2, 2, 224, 224))), images, rtol=0, atol=5e-5
    )


def test_cuts_and_temperatures_are_distributed_as_published():
    count, lowest, highest = 40_000, 2, 6
    draws = Diffeomorphism(cut_min=lowest, cut_max=highest).sample(torch.Size([count, 1, 2, 2]), generator())
    below = lambda share: 2 / math.pi * math.asin(math.sqrt(share))  # noqa: E731 the distribution of Beta(1/2, 1/2)
    for cut in range(lowest, highest + 1):
        expected = 0.0
        for top in range(lowest + 1, highest + 1):
            if cut <= top:
                width = top + 1 - lowest
                expected += (below((cut + 1 - lowest) / width) - below((cut - lowest) / width)) / (highest - lowest)
        assert abs((draws.cut == cut).float().mean().item() - expected) < 0.012  # five standard deviations
    low, high = temperature_range(draws.cut, 2)
    assert (low == high).all()  # on two pixels the range is a point
    wide = Diffeomorphism(cut_max=3).sample(torch.Size([4000, 1, 24, 24]), generator())
    low, high = temperature_range(wide.cut, 24)
    share = (wide.temperature - low) / (high - low)
    for quantile in (0.1, 0.5, 0.9):
        assert abs((share < quantile).float().mean().item() - below(quantile)) < 0.04


def test_each_image_has_a_field_of_its_own_and_depends_on_nothing_else():
    images = torch.rand(5, 3, 16, 16, generator=generator())
    draws = Diffeomorphism.cifar.sample(images.shape, generator(1))
    assert len(draws.displacement.flatten(1).unique(dim=0)) == 5
    together = Diffeomorphism().apply(images, draws)
    for n in range(5):
        alone = Diffeomorphism().apply(images[n : n + 1], draws_of(draws.displacement[n : n + 1]))
        torch.testing.assert_close(alone, together[n : n + 1], rtol=0, atol=1e-6)


def test_large_batches_are_worked_on_in_blocks_without_a_difference(monkeypatch):
    images = torch.rand(7, 1, 8, 8, generator=generator())
    draws = Diffeomorphism.cifar.sample(images.shape, generator(1))
    at_once = Diffeomorphism().apply(images, draws)
    monkeypatch.setattr("robust_augs._draws.BUDGET", 2 * 2 * 64)  # two images at a time
    torch.testing.assert_close(Diffeomorphism().apply(images, draws), at_once, rtol=0, atol=0)
    sizes = [len(Diffeomorphism.cifar.sample(images.shape, generator(s)).displacement.unique(dim=0)) for s in range(3)]
    assert sizes == [7, 7, 7]


def test_the_published_settings():
    assert Diffeomorphism.cifar == Diffeomorphism(cut_min=2, cut_max=100)
    assert Diffeomorphism.imagenet == Diffeomorphism() == Diffeomorphism(cut_min=2, cut_max=500)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="for square images only, got 8 x 6: crop or resize"):
        Diffeomorphism()(torch.rand(2, 3, 8, 6))


@pytest.mark.parametrize("cuts", [(1, 5), (5, 5), (7, 3)])
def test_cuts_out_of_order_are_refused(cuts):
    with pytest.raises(ValueError, match="2 <= cut_min < cut_max, got"):
        Diffeomorphism(cut_min=cuts[0], cut_max=cuts[1])
