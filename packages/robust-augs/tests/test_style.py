import dataclasses

import numpy as np
import pytest
import torch
from robust_augs.style import StyleDraws, StyleTransfer, adain
from robust_augs.style_bank import StyleBank
from torch import nn
from torch.nn import functional


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=generator(seed), dtype=dtype)


class Encoder(nn.Module):
    """Blocks of 2 x 2 pixels, turned by an orthogonal matrix; odd sides are padded, as by a pooling that rounds up."""

    def __init__(self, channels=3, dtype=torch.float64):
        super().__init__()
        matrix = torch.randn(4 * channels, 4 * channels, generator=generator(9), dtype=torch.float64)
        self.matrix = nn.Parameter(torch.linalg.qr(matrix).Q.to(dtype))

    def forward(self, images):
        padded = functional.pad(images, (0, images.shape[3] % 2, 0, images.shape[2] % 2), mode="replicate")
        return torch.einsum("ij,njhw->nihw", self.matrix, functional.pixel_unshuffle(padded, 2))


class Decoder(nn.Module):
    """The inverse of an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.matrix = nn.Parameter(encoder.matrix.detach().clone())

    def forward(self, features):
        return functional.pixel_shuffle(torch.einsum("ji,njhw->nihw", self.matrix, features), 2)


def pair(channels=3, dtype=torch.float64):
    encoder = Encoder(channels, dtype)
    return encoder, Decoder(encoder)


def numpy_statistics(features):
    flat = features.detach().numpy().reshape(*features.shape[:2], -1)
    return flat.mean(-1)[..., None, None], np.sqrt(flat.var(-1, ddof=1) + 1e-5)[..., None, None]


def numpy_adain(content, style):
    (own_mean, own_std), (mean, std) = numpy_statistics(content), numpy_statistics(style)
    return torch.from_numpy(std * (content.detach().numpy() - own_mean) / own_std + mean)


def test_adain_is_the_formula():
    content, style = images_of(4, 5, 6, 7), 3 * images_of(4, 5, 9, 2, seed=1) - 1
    torch.testing.assert_close(adain(content, style), numpy_adain(content, style), rtol=1e-13, atol=1e-14)
    one = style[:1]
    torch.testing.assert_close(adain(content, one), adain(content, one.expand(4, -1, -1, -1)), rtol=0, atol=0)


def test_adain_gives_the_statistics_of_the_style():
    content, style = images_of(4, 5, 6, 7), 3 * images_of(4, 5, 9, 2, seed=1) - 1
    result = adain(content, style)
    torch.testing.assert_close(result.mean((2, 3)), style.mean((2, 3)), rtol=1e-12, atol=1e-12)
    variance = content.var((2, 3))
    expected = (style.var((2, 3)) + 1e-5) * variance / (variance + 1e-5)
    torch.testing.assert_close(result.var((2, 3)), expected, rtol=1e-12, atol=0)


def test_a_constant_channel_takes_the_mean_of_the_style():
    style = images_of(2, 3, 4, 4)
    for side in (1, 5):
        result = adain(torch.full((2, 3, side, side), 0.3, dtype=torch.float64), style)
        torch.testing.assert_close(result, style.mean((2, 3), keepdim=True).expand_as(result), rtol=1e-12, atol=1e-12)


def test_adain_of_half_precision_is_computed_in_float32():
    content, style = images_of(2, 3, 40, 40, dtype=torch.float16), images_of(2, 3, 40, 40, seed=1, dtype=torch.float16)
    assert torch.equal(adain(content, style), adain(content.float(), style.float()).half())


@pytest.mark.parametrize(
    ("content", "style", "message"),
    [
        ((2, 3, 4, 4), (2, 5, 4, 4), r"equally many channels, got \(2, 3, 4, 4\) and \(2, 5, 4, 4\)"),
        ((2, 3, 4), (2, 3, 4, 4), "encode both with one network"),
        ((4, 3, 4, 4), (2, 3, 4, 4), "one style for each of 4 images, or one for all, is needed, got 2"),
    ],
)
def test_features_that_do_not_match_are_refused(content, style, message):
    with pytest.raises(ValueError, match=message):
        adain(torch.rand(content), torch.rand(style))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_transfer_is_the_formula(alpha):
    encoder, decoder = pair()
    images, style = 0.3 + 0.4 * images_of(4, 3, 6, 8), torch.tensor([2, 0, 3, 1])
    features = encoder(images)
    mixed = alpha * numpy_adain(features, features[style]) + (1 - alpha) * features
    result = StyleTransfer(encoder, decoder, alpha=alpha).apply(images, StyleDraws(style=style))
    torch.testing.assert_close(result, decoder(mixed).clamp(0, 1).detach(), rtol=1e-11, atol=1e-12)


def test_a_style_of_its_own_leaves_an_image():
    images = images_of(3, 3, 6, 6)
    result = StyleTransfer(*pair()).apply(images, StyleDraws(style=torch.arange(3)))
    torch.testing.assert_close(result, images, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sides", [(6, 8), (5, 8), (7, 7)])
def test_alpha_0_is_decoder_of_encoder_also_where_they_round_up(sides):
    images = images_of(3, 3, *sides)
    result = StyleTransfer(*pair(), alpha=0.0)(images, generator=generator())
    torch.testing.assert_close(result, images, rtol=1e-12, atol=1e-12)


def test_what_is_too_short_is_stretched():
    def without_last_row(features):
        return features[:, :, :-1]

    images = images_of(2, 3, 6, 6)
    result = StyleTransfer(nn.Identity(), without_last_row, alpha=0.0)(images, generator=generator())
    expected = functional.interpolate(images[:, :, :-1], (6, 6), mode="bilinear", align_corners=False)
    assert torch.equal(result, expected)


@pytest.mark.parametrize(
    "decoder",
    [
        lambda features: functional.interpolate(features, scale_factor=2),
        lambda features: features[..., :3],
        lambda features: features[:, :1],
        lambda features: features.flatten(2),
    ],
    ids=["twice as large", "half as wide", "one channel", "flat"],
)
def test_a_decoder_that_does_not_return_such_images_is_refused(decoder):
    with pytest.raises(ValueError, match=r"turned images \(2, 3, 6, 6\) into .*sides that differ by less than half"):
        StyleTransfer(nn.Identity(), decoder)(images_of(2, 3, 6, 6), generator=generator())


def test_the_result_is_clipped():
    result = StyleTransfer(nn.Identity(), lambda features: 10 * features - 5)(images_of(4, 3, 6, 6))
    assert result.min() == 0
    assert result.max() == 1


def test_styles_are_a_permutation_of_the_batch():
    draws = StyleTransfer(nn.Identity(), nn.Identity()).sample(torch.Size([50, 3, 2, 2]), generator())
    assert torch.equal(draws.style.sort().values, torch.arange(50))
    assert not torch.equal(draws.style, torch.arange(50))


def test_styles_of_a_bank_are_equally_likely_and_used():
    encoder, decoder = pair()
    paintings = images_of(4, 3, 10, 10, seed=3)
    bank = StyleBank.encode(encoder, [paintings])
    transfer = StyleTransfer(encoder, decoder, styles=bank)
    draws = transfer.sample(torch.Size([20_000, 3, 2, 2]), generator())
    assert ((torch.bincount(draws.style, minlength=4) / 20_000 - 0.25).abs() < 0.016).all()  # five standard deviations
    images, style = images_of(3, 3, 6, 6), torch.tensor([3, 3, 1])
    expected = decoder(numpy_adain(encoder(images), encoder(paintings)[style])).clamp(0, 1).detach()
    torch.testing.assert_close(transfer.apply(images, StyleDraws(style=style)), expected, rtol=1e-11, atol=1e-12)


def test_a_bank_of_another_encoder_is_refused():
    bank = StyleBank.encode(nn.Identity(), [torch.rand(2, 3, 4, 4)])
    with pytest.raises(ValueError, match="styles have 3 channels, but the encoder's features 12: make the bank with"):
        StyleTransfer(*pair(), styles=bank)(images_of(2, 3, 4, 4))


class Moody(nn.Module):
    """Normalises with running statistics, drops out and counts its calls in eval mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(images))


def test_networks_run_in_eval_mode_and_are_left_as_they_were():
    encoder, decoder = Moody(), Moody()
    decoder.norm.eval()
    decoder.norm.weight.requires_grad_(False)
    networks = nn.ModuleList([encoder, decoder])
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    modes, flags = [m.training for m in networks.modules()], [p.requires_grad for p in networks.parameters()]
    images = images_of(4, 3, 6, 6, dtype=torch.float32)
    transfer = StyleTransfer(encoder, decoder)
    first = transfer(images, generator=generator())
    assert torch.equal(transfer(images, generator=generator()), first)  # no dropout
    assert not first.requires_grad
    assert [m.training for m in networks.modules()] == modes
    assert [p.requires_grad for p in networks.parameters()] == flags
    assert all(torch.equal(value, before[name]) for name, value in networks.state_dict().items())
    assert all(p.grad is None for p in networks.parameters())


def test_networks_are_left_as_they_were_also_after_an_error():
    encoder = Moody()
    with pytest.raises(ValueError, match="sides that differ"):
        StyleTransfer(encoder, lambda features: features[:, :1])(images_of(2, 3, 4, 4))
    assert all(module.training for module in encoder.modules())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_the_dtype_of_the_encoder_computes():
    images = images_of(2, 3, 6, 6)
    transfer, doubled = (StyleTransfer(*pair(dtype=dtype)) for dtype in (torch.float32, torch.float64))
    result = transfer(images, generator=generator())
    assert result.dtype == torch.float64
    assert torch.equal(result, transfer(images.float(), generator=generator()).double())
    torch.testing.assert_close(result, doubled(images, generator=generator()), rtol=1e-4, atol=1e-5)


def test_an_alpha_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        StyleTransfer(nn.Identity(), nn.Identity(), alpha=1.5)


def test_settings_with_other_networks_differ():
    transfer = StyleTransfer(nn.Identity(), nn.Identity())
    assert transfer != dataclasses.replace(transfer, decoder=nn.Identity())
    assert transfer != dataclasses.replace(transfer, alpha=0.5)
