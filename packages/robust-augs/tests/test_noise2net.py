import dataclasses
import math

import pytest
import torch
from robust_augs import noise2net
from robust_augs.noise2net import NetworkDraws, Noise2Net
from torch import nn

MANY = torch.Size([1000, 3, 8, 8])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(*shape, seed=0):
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


class Res2NetBlock(nn.Module):
    """One block as the paper's code has it, of torch's own layers, for one image."""

    def __init__(self, channels, dilations):
        super().__init__()
        self.entrance = nn.Conv2d(channels, 64, 1, bias=False)
        self.entrance_norm = nn.BatchNorm2d(64)
        self.inner = nn.ModuleList(
            nn.Conv2d(16, 16, 1 if d == 0 else 3, padding=d, dilation=max(d, 1)) for d in dilations
        )
        self.inner_norm = nn.ModuleList(nn.BatchNorm2d(16) for _ in dilations)
        self.exit = nn.Conv2d(64, channels, 1, bias=False)
        self.exit_norm = nn.BatchNorm2d(channels)

    def forward(self, image):
        first, second, third, fourth = self.entrance_norm(self.entrance(image)).relu().split(16, dim=1)
        one = self.inner_norm[0](self.inner[0](first)).relu()
        two = self.inner_norm[1](self.inner[1](second + one)).relu()
        three = self.inner_norm[2](self.inner[2](third + two)).relu()
        return self.exit_norm(self.exit(torch.cat([one, two, three, fourth], dim=1)))


def by_modules(images, draws, mean, std):
    """The published definition, image by image: normalise, add four weighted blocks, undo."""
    result = images.clone()
    for m, i in enumerate(draws.chosen.tolist()):
        x = (images[i : i + 1] - mean) / std
        for b in range(4):
            dilations = draws.dilation[m, b].tolist()
            block = Res2NetBlock(images.shape[1], dilations).double().train()
            with torch.no_grad():
                block.entrance.weight.copy_(draws.entrance[m, b][..., None, None])
                block.exit.weight.copy_(draws.exit[m, b][..., None, None])
                for c, (conv, d) in enumerate(zip(block.inner, dilations, strict=True)):
                    kernel = draws.inner[m, b, c]
                    conv.weight.copy_(kernel[..., 1:2, 1:2] if d == 0 else kernel)
                x = x + draws.eps[m] * block(x)
        result[i] = (x * std + mean)[0]
    return result


@pytest.mark.parametrize("shape", [(6, 3, 12, 9), (3, 3, 5, 5), (4, 3, 1, 7)], ids=str)
def test_the_result_is_that_of_one_network_of_torch_modules_per_image(shape):
    images = images_of(*shape)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    for seed in range(2):
        draws = Noise2Net(share=0.7).sample(images.shape, generator(seed))
        expected = by_modules(images, draws, mean, std)
        torch.testing.assert_close(Noise2Net.imagenet.apply(images, draws), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(Noise2Net().apply(images, draws), expected.clamp(0, 1), rtol=0, atol=1e-9)
        expected = by_modules(images, draws, 0.0, 1.0)
        assert expected.min() < 0
        assert expected.max() > 1
        unit = Noise2Net(space="unit", clip=False)
        torch.testing.assert_close(unit.apply(images, draws), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_take_the_mean_standard_deviation(channels):
    images = images_of(2, channels, 6, 6)
    draws = Noise2Net(share=1.0).sample(images.shape, generator())
    std = (0.229 + 0.224 + 0.225) / 3
    expected = by_modules(images, draws, 0.0, std)
    torch.testing.assert_close(Noise2Net.imagenet.apply(images, draws), expected, rtol=0, atol=1e-9)


def test_float32_and_float64_agree():
    images = images_of(4, 3, 32, 32)
    draws = Noise2Net(share=1.0).sample(images.shape, generator())
    single = Noise2Net.imagenet.apply(images.float(), draws)
    torch.testing.assert_close(single.double(), Noise2Net.imagenet.apply(images, draws), rtol=0, atol=1e-4)


def test_an_image_alone_gets_what_it_gets_in_the_batch():
    images = images_of(5, 3, 8, 8)
    draws = Noise2Net(share=0.8).sample(images.shape, generator())
    together = Noise2Net().apply(images, draws)
    for m, i in enumerate(draws.chosen.tolist()):
        own = {field.name: getattr(draws, field.name)[m : m + 1] for field in dataclasses.fields(draws)}
        alone = Noise2Net().apply(images[i : i + 1], NetworkDraws(**{**own, "chosen": torch.tensor([0])}))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_working_on_few_images_at_a_time_changes_nothing(together, monkeypatch):
    images = images_of(9, 3, 8, 8)
    draws = Noise2Net(share=7 / 9).sample(images.shape, generator())
    expected = Noise2Net().apply(images, draws)
    monkeypatch.setattr(noise2net, "CACHED", together * 16 * 64)
    torch.testing.assert_close(Noise2Net().apply(images, draws), expected, rtol=0, atol=1e-12)


def test_eps_zero_and_share_zero_are_the_identity():
    for images in (images_of(4, 3, 8, 8), images_of(4, 3, 8, 8).float(), (images_of(4, 3, 8, 8) * 255).byte()):
        assert torch.equal(Noise2Net(eps=(0, 0), share=1.0)(images, generator=generator()), images)
        assert torch.equal(Noise2Net(share=0.0)(images, generator=generator()), images)


def test_a_flat_image_has_nothing_to_normalise_before_the_first_kernel_with_a_border():
    images = torch.full((1, 3, 6, 6), 0.4, dtype=torch.float64)
    draws = Noise2Net(share=1.0).sample(images.shape, generator())
    flat = dataclasses.replace(draws, dilation=torch.zeros_like(draws.dilation))
    torch.testing.assert_close(Noise2Net.imagenet.apply(images, flat), images, rtol=0, atol=1e-9)


def test_the_change_of_one_block_has_the_size_of_eps_times_the_standard_deviation():
    images = images_of(16, 3, 16, 16)
    draws = Noise2Net(eps=(0.5, 0.5), share=1.0).sample(images.shape, generator())
    last_alone = torch.zeros(16, 4, 1, 1)
    last_alone[:, 3] = 1
    one_block = dataclasses.replace(draws, exit=draws.exit * last_alone)
    for augmentation, std in (
        (Noise2Net.imagenet, torch.tensor([0.229, 0.224, 0.225])),
        (Noise2Net(space="unit", clip=False), torch.ones(3)),
    ):
        change = augmentation.apply(images, one_block) - images
        torch.testing.assert_close(
            change.std(dim=(2, 3), correction=0), (0.5 * std).double().expand(16, 3), rtol=1e-2, atol=0
        )


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_of_the_batch_is_exact_where_it_can_be(share, count):
    images = images_of(8, 3, 4, 4)
    for seed in range(5):
        changed = (Noise2Net(share=share)(images, generator=generator(seed)) != images).flatten(1).any(1)
        assert changed.sum() == count


def test_elsewhere_the_share_is_right_on_average_and_every_image_is_as_likely():
    random = generator()
    hits = torch.zeros(3)
    for _ in range(1000):
        hits[Noise2Net(share=0.5).sample(torch.Size([3, 1, 2, 2]), random).chosen] += 1
    assert ((hits / 1000 - 0.5).abs() < 0.08).all()  # five standard deviations


def test_sizes_dilations_and_eps_are_drawn_per_image_and_convolution():
    draws = Noise2Net(share=1.0).sample(MANY, generator())
    frequency = torch.stack([(draws.dilation == kind).double().mean(dim=0) for kind in range(4)])
    expected = torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6]).view(4, 1, 1).double()
    assert ((frequency - expected).abs() < 0.08).all()  # five standard deviations
    assert 0.375 <= draws.eps.min() < 0.38
    assert 0.745 < draws.eps.max() <= 0.75
    assert abs(draws.eps.mean() - 0.5625) < 0.02


def test_weights_follow_torchs_default_initialisation():
    draws = Noise2Net(share=1.0).sample(torch.Size([200, 3, 8, 8]), generator())
    pointwise = draws.dilation == 0
    layers = {
        "entrance": (draws.entrance, nn.Conv2d(3, 64, 1)),
        "inner, size 3": (draws.inner[~pointwise], nn.Conv2d(16, 16, 3)),
        "inner, size 1": (draws.inner[pointwise][..., 1, 1], nn.Conv2d(16, 16, 1)),
        "exit": (draws.exit, nn.Conv2d(64, 3, 1)),
    }
    for name, (weights, layer) in layers.items():
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert layer.weight.abs().max() <= bound, name
        assert 0.99 * bound < weights.abs().max() <= bound, name
        assert abs(weights.mean()) < 0.02 * bound, name
        assert abs(weights.std() - bound / math.sqrt(3)) < 0.02 * bound, name
    assert not torch.equal(draws.entrance[0], draws.entrance[1])


def test_the_published_settings():
    assert Noise2Net.imagenet == Noise2Net(eps=(0.375, 0.75), share=0.5, space="normalised", clip=False)


@pytest.mark.parametrize("eps", [(0.5,), (0.5, 0.4), (-0.1, 0.5), (0.1, float("inf")), (float("nan"), 1.0)], ids=str)
def test_an_eps_out_of_order_is_refused(eps):
    with pytest.raises(ValueError, match=r"eps must be the least and the largest weight, such as \(0.375, 0.75\)"):
        Noise2Net(eps=eps)


def test_other_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        Noise2Net(share=1.5)
    with pytest.raises(ValueError, match='space must be "normalised" or "unit", got \'pixels\''):
        Noise2Net(space="pixels")


def test_eps_may_come_as_a_list():
    assert Noise2Net(eps=[0.1, 0.2]) == Noise2Net(eps=(0.1, 0.2))
    assert hash(Noise2Net(eps=[0.1, 0.2])) == hash(Noise2Net(eps=(0.1, 0.2)))
