"""Sequences of noise: with injected numbers in float64, and by their statistics."""

import itertools

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import Draws
from robust_bench.corruptions.sequences import apply, frames, sample

DEVIATIONS = {
    ("imagenet", "gaussian_noise"): (0.03, 0.05, 0.08),
    ("imagenet", "speckle_noise"): (0.05, 0.10, 0.15),
    ("cifar", "gaussian_noise"): (0.02, 0.04, 0.06),
    ("cifar", "speckle_noise"): (0.05, 0.07, 0.1),
}
PHOTONS = {"imagenet": (300, 120, 60), "cifar": (700, 400, 200)}
SIDE = {"imagenet": 224, "cifar": 32}


def truncated(x):
    return (x.clamp(0, 1) * 255 + 255e-6).floor()


@pytest.mark.parametrize("difficulty", [1, 2, 3])
@pytest.mark.parametrize(("preset", "name"), DEVIATIONS)
def test_normal_noise_is_added_to_the_clean_image(pictures, preset, name, difficulty):
    side, deviation = SIDE[preset], DEVIATIONS[preset, name][difficulty - 1]
    images = pictures(count=2, size=(side, side))
    generator = torch.Generator().manual_seed(difficulty)
    normal = [torch.randn(2, 3, side, side, generator=generator) for _ in range(4)]
    made = apply(
        name,
        images,
        lambda frame: Draws(count=2, fields={"normal": normal[frame]}),
        preset=preset,
        difficulty=difficulty,
    )
    x = images.double() / 255
    for number, frame in enumerate(itertools.islice(made, 4)):
        size = x if name == "speckle_noise" else 1.0
        expected = truncated(x + size * deviation * normal[number].double()) if number else images.double()
        apart = (frame.double() - expected).abs()
        assert apart.max() <= 1
        assert (apart > 0).double().mean() < 1e-3  # float32 may fall on the other side of a grey level


@pytest.mark.parametrize("difficulty", [1, 2, 3])
@pytest.mark.parametrize("preset", PHOTONS)
def test_shot_noise_is_a_share_of_the_photons(pictures, preset, difficulty):
    side, photons = SIDE[preset], PHOTONS[preset][difficulty - 1]
    images = pictures(count=2, size=(side, side))
    counts = torch.poisson(images.double() / 255 * photons, generator=torch.Generator().manual_seed(0))
    made = apply(
        "shot_noise",
        images,
        lambda _: Draws(count=2, fields={"counts": counts}),
        preset=preset,
        difficulty=difficulty,
    )
    clean, noisy = itertools.islice(made, 2)
    assert torch.equal(clean, images)
    assert torch.equal(noisy, (counts / photons).clamp(0, 1).mul(255).to(torch.uint8))


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "shot_noise"])
@pytest.mark.parametrize("difficulty", [1, 3])
def test_own_noise_has_the_right_size_and_is_new_in_every_frame(name, difficulty):
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = torch.stack(list(frames(grey, name, "cifar", difficulty))[1:]).double()
    x = 128 / 255
    if name == "shot_noise":
        deviation = (x / PHOTONS["cifar"][difficulty - 1]) ** 0.5
    else:
        deviation = DEVIATIONS["cifar", name][difficulty - 1] * (x if name == "speckle_noise" else 1.0)
    deviation *= 255
    size = noisy.numel()
    assert abs(noisy.mean() - 127.5) < 4.9 * deviation / size**0.5 + 0.05  # truncation takes half a level
    assert noisy.var() == pytest.approx(deviation**2 + 1 / 12, rel=4.9 * (2 / size) ** 0.5 + 0.03)
    flat = noisy.flatten(1) - noisy.mean()
    together = flat @ flat.T / (flat.norm(dim=1)[:, None] * flat.norm(dim=1))
    together.fill_diagonal_(0.0)
    assert together.abs().max() < 5.5 / flat.shape[1] ** 0.5


def test_draws_belong_to_the_frame_the_difficulty_and_the_image():
    random = ImageRandom(0, torch.tensor([4, 5]))

    def normal(frame, difficulty=1, name="gaussian_noise"):
        known = {"random": random, "preset": "cifar", "difficulty": difficulty}
        return sample(name, frame, (2, 3, 32, 32), **known).fields["normal"]

    assert torch.equal(normal(1), normal(1))
    others = [normal(1)[1], normal(2)[0], normal(1, difficulty=2)[0], normal(1, name="speckle_noise")[0]]
    assert not any(torch.equal(normal(1)[0], other) for other in others)
    assert not sample("gaussian_noise", 0, (2, 3, 32, 32), random=random, preset="cifar").fields
    whole = sample("gaussian_noise", 1, (2, 3, 256, 341), random=random)
    assert whole.fields["normal"].shape == (2, 3, 224, 224)
