import dataclasses
import math

import pytest
import torch
from robust_augs.adversarial_noise import AdversarialNoise, AdversarialNoiseDraws
from robust_augs.noise_generator import NoiseGenerator
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(dtype=torch.float32, shape=(6, 3, 8, 8), seed=0):
    levels = torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)
    return levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)


def noise_of(remembered=0, kernel_size=1, **settings):
    network = NoiseGenerator(kernel_size=kernel_size, generator=generator(40))
    for seed in range(remembered):
        network.reset_parameters(generator=generator(50 + seed))
        network.remember()
    return AdversarialNoise(**{"network": network, "eps": 2.0} | settings)


def norms(noisy, images):
    return (noisy.double() - images.double()).flatten(1).norm(dim=1)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("eps", [0.5, 5.0, 7.0])
def test_the_norm_is_eps_after_clipping(kernel_size, eps):
    images = images_of()
    noisy = noise_of(kernel_size=kernel_size, eps=eps, share=1.0)(images, generator=generator())
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    torch.testing.assert_close(norms(noisy, images), torch.full((6,), eps, dtype=torch.float64), rtol=1e-5, atol=0)


def test_without_care_for_clipping_the_norm_before_it_is_eps():
    noise, images = noise_of(share=1.0, clip_aware=False), torch.full((4, 3, 8, 8), 0.5)
    draws = noise.sample(images.shape, generator())
    torch.testing.assert_close(
        norms(noise.apply(images, draws), images), torch.full((4,), 2.0, dtype=torch.float64), rtol=1e-5, atol=0
    )
    direction = noise.network(draws.normals).detach()
    scaled = 2.0 * direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
    images = images_of(shape=(4, 3, 8, 8))
    noisy = noise.apply(images, draws)
    torch.testing.assert_close(noisy, (images + scaled).clamp(0, 1))
    assert (norms(noisy, images) < 2).all()


def test_the_noise_is_that_of_the_drawn_versions():
    noise = noise_of(remembered=2, kernel_size=3)
    images, version = images_of(), torch.tensor([-1, 0, 2, 1, -1, 0])
    normals = torch.randn(6, 3, 10, 10, generator=generator())
    noisy = noise.apply(images, AdversarialNoiseDraws(version=version, normals=normals))
    for i in range(6):
        if version[i] < 0:
            assert torch.equal(noisy[i], images[i])
        else:
            alone = AdversarialNoiseDraws(version=version[i : i + 1], normals=normals[i : i + 1])
            torch.testing.assert_close(noise.apply(images[i : i + 1], alone)[0], noisy[i])


def versions(noise, count, batches):
    random = generator()
    return torch.stack([noise.sample(torch.Size([count, 3, 1, 1]), random).version for _ in range(batches)])


def test_the_published_shares_are_exact_in_a_batch_where_they_can_be():
    drawn = versions(noise_of(remembered=3), 10, 50)
    assert ((drawn < 0).sum(1) == 5).all()
    assert ((drawn == 0).sum(1) == 3).all()
    assert ((drawn > 0).sum(1) == 2).all()


def test_elsewhere_the_shares_are_right_on_average():
    for count in (1, 3):
        drawn = versions(noise_of(remembered=3), count, 2000)
        assert set((drawn >= 0).sum(1).tolist()) == {math.floor(count / 2), math.ceil(count / 2)}
        for share, chosen in ((0.5, drawn < 0), (0.3, drawn == 0), (0.2, drawn > 0)):
            assert abs(chosen.double().mean() - share) < 0.056  # five standard deviations


def test_earlier_versions_and_images_are_equally_likely():
    drawn = versions(noise_of(remembered=4), 10, 2000)
    for k in range(1, 5):
        assert abs((drawn == k).double().mean() - 0.05) < 0.008  # five standard deviations
    assert ((drawn > 0).double().mean(0) - 0.2).abs().max() < 0.045


def test_before_anything_is_remembered_all_noise_is_that_of_the_present():
    drawn = versions(noise_of(), 10, 20)
    assert ((drawn < 0).sum(1) == 5).all()
    assert ((drawn == 0).sum(1) == 5).all()


def test_a_restored_state_repeats_the_noise():
    noise = noise_of(remembered=3, share=1.0)
    noise.network.reset_parameters(generator=generator(9))
    restored = AdversarialNoise(eps=2.0, share=1.0)
    restored.network.load_state_dict(noise.network.state_dict())
    images = images_of()
    assert torch.equal(restored(images, generator=generator()), noise(images, generator=generator()))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Linear(192, 4)
        nn.init.normal_(self.head.weight, generator=generator(2))

    def forward(self, images):
        return self.head(self.drop(self.norm(images)).flatten(1))


def test_climbing_reaches_the_generator_and_nothing_else():
    noise, model, images, labels = noise_of(), Classifier(), images_of(), torch.tensor([0, 1, 2, 3, 0, 1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images.requires_grad_()
    with torch.no_grad():  # also where gradients are off
        loss = noise.climb(model, images, labels, generator=generator())
    loss.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in noise.network.parameters()
    )
    assert sum(float(parameter.grad.abs().sum()) for parameter in noise.network.parameters()) > 0
    assert images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_loss_is_that_of_the_model_in_eval_mode_on_noisy_images():
    noise, model, images, labels = noise_of(share=1.0), Classifier(), images_of(), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = noise.climb(model, images, labels, generator=generator(3))
    normals = torch.randn(6, 3, 8, 8, generator=generator(3))
    noisy = noise.apply(images, AdversarialNoiseDraws(version=torch.zeros(6, dtype=torch.int64), normals=normals))
    torch.testing.assert_close(loss, -cross_entropy(model.eval()(noisy), labels), rtol=1e-5, atol=1e-6)


def test_climbing_finds_the_noise_that_hurts():
    """Of a classifier that reads one channel's mean, the worst noise is constant there: what the bias can make."""
    labels, images = torch.zeros(16, dtype=torch.int64), torch.full((16, 3, 8, 8), 0.5)

    def model(batch):
        brightness = 10 * (batch[:, 0].mean((1, 2)) - 0.5)
        return torch.stack([brightness, -brightness], dim=1)

    noise = noise_of(eps=3.0)
    optimizer = torch.optim.Adam(noise.network.parameters(), lr=0.02)
    random = generator()
    losses = []
    for _ in range(150):
        loss = noise.climb(model, images, labels, generator=random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(-loss.item())
    # All 3.0 of the norm in one channel of 64 pixels lower it by 3 / 8.
    worst = math.log1p(math.exp(2 * 10 * 3 / 8))
    assert losses[0] < 0.2 * worst
    assert 0.7 * worst < losses[-1] <= worst


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_shape_and_dtype_come_back_and_the_input_stays(dtype):
    images = images_of(dtype)
    before = images.clone()
    noise = noise_of(remembered=2)
    noisy = noise(images, generator=generator())
    assert (noisy.shape, noisy.dtype) == (images.shape, dtype)
    assert torch.equal(images, before)
    assert not torch.equal(noisy, images)
    if dtype != torch.uint8 and dtype != torch.float64:
        assert torch.equal(noisy, noise(images.float(), generator=generator()).to(dtype))


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 3, 5, 9), (0, 3, 8, 8)], ids=str)
def test_one_image_odd_sides_and_no_image_at_all(shape):
    assert noise_of(share=1.0)(images_of(shape=shape), generator=generator()).shape == shape


def test_the_generator_alone_decides_and_no_gradient_flows():
    noise, images = noise_of(remembered=2), images_of().requires_grad_()
    state = torch.get_rng_state()
    noisy = noise(images, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not noisy.requires_grad
    assert torch.equal(noise(images, generator=generator(1)), noisy)
    assert not torch.equal(noise(images, generator=generator(2)), noisy)
    draws = noise.sample(images.shape, generator(1))
    assert torch.equal(noise.apply(images, draws), noisy)


class IndicesAreNear(TorchDispatchMode):
    """What a device asks of indices, and tensors without numbers let pass: to be on the CPU or beside the values."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default):
            assert all(places is None or places.device.type in ("cpu", args[0].device.type) for places in args[1])
        return operation(*args, **(kwargs or {}))


def test_network_and_images_may_be_on_different_devices(monkeypatch):
    def all_places(mask):  # how many are chosen, tensors without numbers cannot say
        return torch.arange(len(mask), device=mask.device)[:, None]

    monkeypatch.setattr(torch.Tensor, "nonzero", all_places)
    noise = noise_of(remembered=2, share=1.0)
    with FakeTensorMode(allow_non_fake_inputs=True), IndicesAreNear():
        images, labels = torch.rand(6, 3, 8, 8, device="cuda"), torch.zeros(6, dtype=torch.int64, device="cuda")
        noisy = noise(images)
        assert (noisy.device, noisy.dtype) == (images.device, images.dtype)
        weight = torch.rand(4, 192, device="cuda")
        assert noise.climb(lambda batch: batch.flatten(1) @ weight.T, images, labels).device == images.device


def test_share_0_is_the_identity():
    images = images_of()
    assert torch.equal(noise_of(share=0.0)(images, generator=generator()), images)


def test_settings_are_values():
    noise = AdversarialNoise()
    assert (noise.eps, noise.share, noise.replay, noise.clip_aware) == (135.0, 0.5, 0.4, True)
    assert noise == dataclasses.replace(noise)
    assert noise != dataclasses.replace(noise, network=NoiseGenerator())
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise.eps = 1.0


def test_an_eps_for_larger_images_is_refused_with_one_that_fits():
    with pytest.raises(ValueError, match=r"eps 135 is more than any change of images \(3, 32, 32\).*eps=19.3 here"):
        AdversarialNoise()(torch.rand(2, 3, 32, 32))


def test_other_channels_are_refused():
    with pytest.raises(
        ValueError, match=r"images have 1 channels, but the network makes noise for 3: .*NoiseGenerator\(1\)"
    ):
        noise_of()(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan"), float("inf")])
def test_an_eps_out_of_range_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be a positive finite number"):
        AdversarialNoise(eps=eps)


@pytest.mark.parametrize("name", ["share", "replay"])
def test_a_share_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got 1.5"):
        AdversarialNoise(**{name: 1.5})
