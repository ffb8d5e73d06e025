import pytest
import torch
from robust_augs import GaussianNoise
from robust_augs.noise import NoiseDraws


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_noise_is_the_formula():
    images = torch.rand(3, 2, 4, 4, generator=generator(), dtype=torch.float64)
    noise = torch.randn(3, 2, 4, 4, generator=generator(1), dtype=torch.float64)
    draws = NoiseDraws(sigma=torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64), noise=noise)
    for speckle in (False, True):
        result = GaussianNoise(speckle=speckle).apply(images, draws)
        for i, sigma in enumerate([0.0, 0.1, 0.5]):
            added = sigma * noise[i] * (images[i] if speckle else 1)
            torch.testing.assert_close(result[i], (images[i] + added).clamp(0, 1), rtol=1e-12, atol=1e-15)
        assert torch.equal(result[0], images[0])


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_of_the_batch_is_exact_where_it_can_be(share, count):
    for seed in range(20):
        draws = GaussianNoise(share=share).sample(torch.Size([8, 1, 2, 2]), generator(seed))
        assert (draws.sigma > 0).sum() == count


def test_elsewhere_the_share_is_right_on_average_also_for_single_images():
    random = generator()
    for count, share in [(1, 0.5), (5, 0.3)]:
        counts = [
            int((GaussianNoise(share=share).sample(torch.Size([count, 1, 1, 1]), random).sigma > 0).sum())
            for _ in range(4000)
        ]
        assert set(counts) == {int(share * count), int(share * count) + 1}
        assert abs(sum(counts) / 4000 - share * count) < 0.04  # five standard deviations


def test_every_image_is_equally_likely_to_be_noisy():
    random = generator()
    counts = sum((GaussianNoise().sample(torch.Size([6, 1, 1, 1]), random).sigma > 0).long() for _ in range(4000))
    assert ((counts / 4000 - 0.5).abs() < 0.04).all()


def test_several_sigmas_are_drawn_per_image_with_equal_probability():
    sigmas = (0.08, 0.12, 0.18, 0.26, 0.38)
    draws = GaussianNoise(sigma=sigmas, share=1.0).sample(torch.Size([20_000, 1, 1, 1]), generator())
    for sigma in sigmas:
        assert abs((draws.sigma == sigma).float().mean() - 0.2) < 0.015  # five standard deviations
    assert abs(draws.noise.mean()) < 0.04
    assert abs(draws.noise.std() - 1) < 0.03


def test_sigma_zero_is_the_identity():
    images = torch.rand(4, 3, 5, 5)
    assert torch.equal(GaussianNoise(sigma=0.0)(images, generator=generator()), images)


def test_the_result_is_clipped():
    noisy = GaussianNoise(sigma=2.0, share=1.0)(torch.rand(4, 3, 5, 5), generator=generator())
    assert noisy.min() == 0
    assert noisy.max() == 1


def test_the_published_settings():
    assert GaussianNoise.single == GaussianNoise(sigma=0.5, share=0.5)
    assert GaussianNoise.multiple == GaussianNoise(sigma=(0.08, 0.12, 0.18, 0.26, 0.38), share=0.5)
    assert GaussianNoise.speckled == GaussianNoise(sigma=(0.15, 0.2, 0.35, 0.45, 0.6), share=0.5, speckle=True)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), (), (0.1, -0.1)], ids=str)
def test_a_sigma_out_of_range_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma must be a finite number of at least 0"):
        GaussianNoise(sigma=sigma)


@pytest.mark.parametrize("sigma", [[0.1, 0.2], torch.tensor([0.1, 0.2], dtype=torch.float64)], ids=["list", "tensor"])
def test_any_sequence_of_sigmas_is_kept_as_a_tuple(sigma):
    noise = GaussianNoise(sigma=sigma)
    assert noise == GaussianNoise(sigma=(0.1, 0.2))
    assert hash(noise) == hash(GaussianNoise(sigma=(0.1, 0.2)))
    drawn = noise.sample(torch.Size([64, 1, 1, 1]), generator()).sigma
    assert set(drawn.tolist()) == set(torch.tensor([0.0, 0.1, 0.2]).tolist())


@pytest.mark.parametrize("sigma", ["0.5", "15", None, ["a"], [[0.1]]], ids=str)
def test_a_sigma_that_is_no_number_is_refused(sigma):
    with pytest.raises(TypeError, match=r"sigma must be a number, such as 0\.5, or a sequence of them, got"):
        GaussianNoise(sigma=sigma)


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        GaussianNoise(share=1.5)
