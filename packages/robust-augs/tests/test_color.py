import math
from dataclasses import replace

import pytest
import torch
from robust_augs.color import ColorDraws, RandomColor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def series(images, draws):
    """The published sum in float64, wave by wave, and the sum of the amplitudes of each image and channel."""
    values = images.double()
    result, amplitudes = values.clone(), torch.zeros(images.shape[:2], dtype=torch.float64)
    for n in range(len(images)):
        for c in range(images.shape[1]):
            for offset in range(draws.normals.shape[2]):
                k = int(draws.start[n]) + offset
                if k <= int(draws.cut[n]):
                    b = float(draws.normals[n, c, offset]) * math.sqrt(float(draws.temperature[n]))
                    result[n, c] += b * torch.sin(math.pi * k * values[n, c])
                    amplitudes[n, c] += abs(b)
    return result.clamp(0, 1), amplitudes


@pytest.mark.parametrize(
    "color",
    [
        RandomColor.cifar,
        RandomColor.imagenet,
        RandomColor(cut_max=1, band=None),
        RandomColor(cut_max=7, band=50),
        RandomColor(cut_max=5000),
    ],
    ids=["CIFAR", "ImageNet", "one wave", "band beyond the cut", "very high"],
)
def test_equals_the_series_within_the_stated_error(color):
    images = torch.rand(6, 2, 16, 16, generator=generator(), dtype=torch.float64)
    images[0, 0, 0, :3] = torch.tensor([0, 1, 0.5])
    draws = color.sample(images.shape, generator(1))
    draws.cut[0], draws.start[0] = color.cut_max, max(1, color.cut_max - 10) if color.band else 1  # the worst case
    expected, amplitudes = series(images, draws)
    bound = 4e-5 * amplitudes[:, :, None, None]
    assert ((color.apply(images, draws) - expected).abs() <= bound + 1e-12).all()
    single = images.float()
    expected, _ = series(single, draws)  # at the values that float32 has
    rounding = 2e-7 * (1 + math.pi * color.cut_max * amplitudes[:, :, None, None])  # of x, times the steepest slope
    assert ((color.apply(single, draws) - expected).abs() <= bound + rounding).all()


def test_there_is_no_error_of_the_table_at_the_values_of_eight_bit_images():
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16) / 255
    images = levels.expand(4, 3, 16, 16).clone()
    for color in (RandomColor.cifar, RandomColor.imagenet):
        draws = color.sample(images.shape, generator())
        expected, _ = series(images, draws)
        torch.testing.assert_close(color.apply(images, draws), expected, rtol=0, atol=1e-9)


def test_the_result_is_clipped():
    changed = RandomColor(temperature_max=5.0)(torch.rand(4, 3, 16, 16), generator=generator())
    assert changed.min() == 0
    assert changed.max() == 1


def test_temperature_zero_leaves_the_colours_exactly():
    images = torch.rand(4, 3, 16, 16, generator=generator())
    assert torch.equal(RandomColor(temperature_max=0.0)(images, generator=generator()), images)
    draws = RandomColor.cifar.sample(images.shape, generator())
    draws.temperature[:2] = 0
    changed = RandomColor.cifar.apply(images, draws)
    assert torch.equal(changed[:2], images[:2])
    assert not torch.equal(changed[2:], images[2:])


def test_black_stays_black_and_white_white():
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    for color in (RandomColor.cifar, RandomColor.imagenet):
        torch.testing.assert_close(color(images, generator=generator()), images, rtol=0, atol=1e-4)


def test_equal_values_of_a_channel_stay_equal():
    images = torch.rand(3, 2, 1, 5, generator=generator()).expand(3, 2, 4, 5)
    changed = RandomColor()(images, generator=generator(1))
    assert torch.equal(changed, changed[:, :, :1].expand_as(changed))
    assert not torch.equal(changed[:, 0], changed[:, 1])


@pytest.mark.parametrize("band", [None, 2])
def test_cut_start_and_temperature_are_distributed_as_published(band):
    count, top = 30_000, 5
    draws = RandomColor(cut_max=top, temperature_max=0.4, band=band).sample(torch.Size([count, 2, 1, 1]), generator())
    for cut in range(1, top + 1):
        chosen = draws.cut == cut
        assert abs(chosen.float().mean().item() - 1 / top) < 0.012  # five standard deviations
        starts = draws.start[chosen].bincount(minlength=top + 1) / chosen.sum()
        expected = [1.0] if band is None else [1 / cut] * cut
        assert starts[1 : len(expected) + 1].tolist() == pytest.approx(expected, abs=0.032)
        assert starts.sum().item() == pytest.approx(starts[1 : len(expected) + 1].sum().item())
    assert draws.temperature.min() >= 0
    assert draws.temperature.max() < 0.4
    for quantile in (0.1, 0.5, 0.9):
        assert abs((draws.temperature < 0.4 * quantile).float().mean().item() - quantile) < 0.015
    assert draws.normals.shape == (count, 2, band or top)
    assert abs(draws.normals.mean().item()) < 0.02
    assert abs(draws.normals.std().item() - 1) < 0.02


def test_the_variance_of_a_colour_is_that_of_its_coefficients():
    """Of a mid grey, before it is clipped: the sum over k of T sin(pi k x)^2."""
    count, x, temperature = 4000, 0.47, 1e-3
    images = torch.full((count, 1, 1, 1), x, dtype=torch.float64)
    color = RandomColor(cut_max=4, temperature_max=temperature, band=None)
    draws = replace(
        color.sample(images.shape, generator()),
        cut=torch.full((count,), 4),
        temperature=torch.full((count,), temperature),
    )
    expected = temperature * sum(math.sin(math.pi * k * x) ** 2 for k in range(1, 5))
    assert color.apply(images, draws).var().item() == pytest.approx(expected, rel=0.1)


def test_images_do_not_influence_each_other_also_where_they_are_worked_on_in_blocks(monkeypatch):
    images = torch.rand(5, 3, 8, 8, generator=generator())
    for color in (RandomColor.cifar, RandomColor.imagenet):
        monkeypatch.undo()
        draws = color.sample(images.shape, generator(1))
        together = color.apply(images, draws)
        order = torch.tensor([3, 0, 4, 2, 1])
        fields = {name: getattr(draws, name) for name in ("cut", "start", "temperature", "normals")}
        shuffled = color.apply(images[order], ColorDraws(**{name: value[order] for name, value in fields.items()}))
        torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-6)
        monkeypatch.setattr("robust_augs._draws.BUDGET", 1)  # one image at a time
        torch.testing.assert_close(color.apply(images, draws), together, rtol=0, atol=1e-6)


def test_values_that_are_not_checked_do_no_harm():
    """On a GPU nobody looks at the values: what is out of range must not read beyond the table."""
    images = torch.tensor([float("nan"), -3.0, 7.0, 0.5]).view(1, 1, 2, 2)
    changed = RandomColor().apply(images, RandomColor().sample(images.shape, generator()))
    assert changed.flatten()[0].isnan()
    assert changed.flatten()[1] == 0
    assert changed.flatten()[2] == 1
    assert 0 <= changed.flatten()[3] <= 1


def test_the_published_settings():
    assert RandomColor.cifar == RandomColor(cut_max=100, temperature_max=0.01, band=None)
    assert RandomColor.imagenet == RandomColor() == RandomColor(cut_max=500, temperature_max=0.05, band=20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut_max": 0}, "cut_max must be at least 1, got 0"),
        ({"temperature_max": -0.1}, "temperature_max must be a finite number of at least 0, got -0.1"),
        ({"temperature_max": float("nan")}, "temperature_max must be a finite number"),
        ({"band": 0}, "band must be at least 1, or None for all frequencies, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomColor(**settings)
