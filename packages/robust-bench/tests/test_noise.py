"""Gaussian, speckle and impulse noise: parity with the published code, and what the noise is."""

import numpy as np
import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import PRESETS, Draws, apply, corrupt, sample

SEVERITIES = (1, 2, 3, 4, 5)


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
def test_equals_the_published_code_with_its_own_draws(published, apart, name, severity, preset):
    clean, expected, numbers = published(name, severity, preset)
    fields = [
        np.random.RandomState(1000 * number + severity).normal(size=(*clean.shape[2:], 3)).transpose(2, 0, 1)
        for number in numbers
    ]
    draws = Draws(count=len(fields), fields={"normal": torch.from_numpy(np.stack(fields))})
    largest, _, share = apart(apply(name, clean, severity, draws, preset=preset), expected)
    assert largest <= 1
    assert share < 0.01
    assert torch.equal(apply(name, clean, severity, draws, preset=preset, precision="double"), expected)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gaussian_noise", lambda x, z, s: x + s * z),
        ("speckle_noise", lambda x, z, s: x + x * s * z),
    ],
)
def test_is_the_formula(name, formula):
    images = torch.rand(3, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    draws = sample(name, 4, images.shape, random=ImageRandom(1, torch.arange(3)), preset="cifar")
    deviation = PRESETS["cifar"].constants[name][3]
    expected = formula(images, draws.fields["normal"], deviation).clamp(0, 1)
    torch.testing.assert_close(apply(name, images, 4, draws, preset="cifar"), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_hit_their_share_half_black_half_white(severity):
    share = PRESETS["imagenet"].constants["impulse_noise"][severity - 1]
    images = torch.full((4, 3, 224, 224), 100, dtype=torch.uint8)
    out = corrupt(images, "impulse_noise", severity)
    assert out.unique().tolist() == [0, 100, 255]
    for value in (0, 255):
        hits = (out == value).double().mean().item()
        assert abs(hits - share / 2) < 4.9 * (share / 2 / images.numel()) ** 0.5


def test_impulses_hit_every_channel_on_its_own():
    out = corrupt(torch.full((4, 3, 224, 224), 100, dtype=torch.uint8), "impulse_noise", 5)
    hit = (out != 100).double() - 0.27
    for first, second in ((0, 1), (0, 2), (1, 2)):
        correlation = (hit[:, first] * hit[:, second]).mean() / (0.27 * 0.73)
        assert abs(correlation) < 4.9 / (4 * 224 * 224) ** 0.5


def test_impulses_follow_their_uniform_numbers(pictures):
    images = pictures(count=1, size=(1, 5), channels=1)
    uniform = torch.tensor([0.0, 0.034, 0.036, 0.069, 0.0701]).view(1, 1, 1, 5)  # the share is 0.07
    draws = Draws(count=1, fields={"uniform": uniform})
    kept = images[0, 0, 0, 4].item()
    assert apply("impulse_noise", images, 5, draws, preset="cifar").flatten().tolist() == [0, 0, 255, 255, kept]
    floats = apply("impulse_noise", images / 255, 5, draws, preset="cifar").flatten()
    assert floats.tolist() == [0, 0, 1, 1, (images / 255)[0, 0, 0, 4].item()]


def test_depends_on_seed_id_and_severity_alone():
    plain = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)

    def noise(**changes):
        return corrupt(plain, "gaussian_noise", **{"severity": 3, "preset": "cifar", "seed": 0} | changes)

    base = noise()
    assert torch.equal(base, noise())
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(base, noise(seed=1))
    assert torch.equal(noise(ids=torch.tensor([7, 7]))[0], noise(ids=torch.tensor([7, 7]))[1])
    normal = [
        sample("gaussian_noise", severity, (1, 3, 32, 32), random=ImageRandom(0), preset="cifar").fields["normal"]
        for severity in (1, 2)
    ]
    assert abs(float((normal[0] * normal[1]).mean())) < 4.9 / (3 * 32 * 32) ** 0.5
