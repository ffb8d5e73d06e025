"""VQGAN: published sizes, and a second implementation written down from the formulas."""

import pytest
import torch
from robust_models import load_weights, vqgan
from robust_models.vqgan import VQGAN, vqgan_f8_16384, vqgan_f16_1024
from torch.nn import functional

WIDTHS = (32, 64, 64)


@pytest.fixture
def model(by_rule):
    return by_rule(VQGAN(WIDTHS, latent_width=6, codes=16, code_width=5), 2).double()


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double()


class Slow:
    """The network from its weights by name, in plain operations."""

    def __init__(self, weights):
        self.weights = weights

    def conv(self, x, name, **options):
        return functional.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def norm(self, x, name):
        grouped = x.reshape(x.shape[0], 32, -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, unbiased=False)
        x = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
        weight, bias = (self.weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return x * weight + bias

    def block(self, x, name):
        h = self.conv(self.swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1", padding=1)
        h = self.conv(self.swish(self.norm(h, f"{name}.norm2")), f"{name}.conv2", padding=1)
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(x, shortcut) if f"{shortcut}.weight" in self.weights else x)

    def attention(self, x, name):
        normed = self.norm(x, f"{name}.norm")
        q, k, v = (self.conv(normed, f"{name}.{part}").flatten(2) for part in "qkv")
        weights = (torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5).softmax(2)
        return x + self.conv(torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape), f"{name}.proj_out")

    def level(self, x, name, blocks, attends):
        for index in range(blocks):
            x = self.block(x, f"{name}.block.{index}")
            x = self.attention(x, f"{name}.attn.{index}") if attends else x
        return x

    def middle(self, x, name):
        x = self.attention(self.block(x, f"{name}.mid.block_1"), f"{name}.mid.attn_1")
        return self.block(x, f"{name}.mid.block_2")

    def out(self, x, name):
        return self.conv(self.swish(self.norm(x, f"{name}.norm_out")), f"{name}.conv_out", padding=1)

    def encode(self, images):
        x = self.conv(2 * images - 1, "encoder.conv_in", padding=1)
        for level in range(3):
            x = self.level(x, f"encoder.down.{level}", 2, attends=level == 2)
            if level < 2:
                x = self.conv(functional.pad(x, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", stride=2)
        return self.conv(self.out(self.middle(x, "encoder"), "encoder"), "quant_conv")

    def decode(self, vectors):
        x = self.middle(self.conv(self.conv(vectors, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder")
        for level in (2, 1, 0):
            x = self.level(x, f"decoder.up.{level}", 3, attends=level == 2)
            if level > 0:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(x, f"decoder.up.{level}.upsample.conv", padding=1)
        return (self.out(x, "decoder").clamp(-1, 1) + 1) / 2

    @staticmethod
    def swish(x):
        return x / (1 + (-x).exp())


def test_is_the_network_of_the_formulas(model, images):
    slow = Slow(model.state_dict())
    latents, codebook = slow.encode(images), model.quantize.embedding.weight
    distances = (latents.movedim(1, -1)[..., None, :] - codebook).square().sum(-1)
    indices = distances.argmin(-1)
    assert len(indices.unique()) > 2
    assert torch.equal(model.code_indices(images), indices)
    expected = slow.decode(codebook[indices].movedim(-1, 1))
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("build", "parameters", "tensors", "grid"),
    [(vqgan_f16_1024, 72_141_699, 343, 16), (vqgan_f8_16384, 67_717_295, 299, 8)],
)
def test_has_the_published_size(build, parameters, tensors, grid):
    with torch.device("meta"):
        model = build()
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert model.cell == grid
    parts = list(dict.fromkeys(name.partition(".")[0] for name in model.state_dict()))
    assert parts == ["encoder", "decoder", "quantize", "quant_conv", "post_quant_conv"]


def test_images_come_back_in_their_shape_and_range(model, images):
    found = model(images)
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert model.code_indices(images).shape == (2, 4, 6)
    assert torch.equal(model.decode(model.code_indices(images)), found)
    torch.testing.assert_close(model(images[:1]), found[:1])
    bigger = model.float()(images.float().to(memory_format=torch.channels_last))
    assert bigger.shape == images.shape


def test_gradients_pass_the_codebook_only_on_request(model, images):
    assert not model.requires_grad_(False)(images.requires_grad_()).requires_grad
    model.quantize.straight_through = True
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert gradient.abs().sum() > 0


def test_can_be_exported(model, images):
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


def test_says_which_sizes_it_takes(model):
    for ask in (model, model.code_indices):
        with pytest.raises(ValueError, match="multiples of 4 pixels, got 16 x 18"):
            ask(torch.rand(1, 3, 16, 18).double())


def test_reads_a_published_file(model, images, tmp_path):
    """Such a file holds the discriminator of the training too."""
    weights = {**model.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(4)}
    assert vqgan.checkpoint_filter(weights, model).keys() == model.state_dict().keys()
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "vqgan.ckpt")
    other = VQGAN(WIDTHS, latent_width=6, codes=16, code_width=5).double()
    load_weights(other, tmp_path / "vqgan.ckpt")
    assert torch.equal(other(images), model(images))
