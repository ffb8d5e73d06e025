"""Attention maps: what the layers compute, read without changing it."""

import pytest
import timm
import torch
from robust_models import NormalizedModel, SmallCNN
from robust_models.attention import attention_maps, attention_weights
from torch import nn
from torch.nn import functional

SMALL = {"img_size": 32, "num_classes": 5}
VIT = {**SMALL, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}


def build(name, **settings):
    """A model without weights that are 0 at the start, such as biases of positions."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def vit():
    return build("vit_tiny_patch16_224", **VIT)


def fuse(model, on):
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = on
    return model


@pytest.mark.parametrize("fused", [True, False])
def test_equals_an_explicit_softmax_in_float64(vit, images, fused):
    """The transformer written once more, block after block, from its weights."""
    fuse(vit, fused)
    found = attention_maps(vit, images)
    assert list(found.maps) == ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]
    assert found.left_out == {}
    w = {name: value.double() for name, value in vit.state_dict().items()}

    def norm(x, name):
        return functional.layer_norm(x, (24,), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    patches = images.double().unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(3, 16, 192)
    x = patches @ w["patch_embed.proj.weight"].reshape(24, 192).T + w["patch_embed.proj.bias"]
    x = torch.cat((w["cls_token"].expand(3, -1, -1), x), dim=1) + w["pos_embed"]
    for block in ("blocks.0", "blocks.1", "blocks.2"):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").reshape(3, 17, 3, 3, 8)
        q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))
        scores = torch.einsum("nhtd,nhsd->nhts", q, k) / 8**0.5
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        torch.testing.assert_close(found.maps[f"{block}.attn"].double(), weights, rtol=0, atol=1e-6)
        x = x + linear((weights @ v).transpose(1, 2).reshape(3, 17, 24), f"{block}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    torch.testing.assert_close(found.logits.double(), linear(norm(x, "norm")[:, 0], "head"), rtol=0, atol=1e-5)


FAMILIES = {
    "deit": ("deit_tiny_distilled_patch16_224", VIT, {(3, 3, 18, 18): 3}),
    "beit": ("beit_base_patch16_224", {**VIT, "use_rel_pos_bias": True}, {(3, 3, 17, 17): 3}),
    "eva": ("eva02_tiny_patch14_224", {**VIT, "embed_dim": 48}, {(3, 3, 17, 17): 3}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {**SMALL, "window_size": 4, "embed_dim": 12, "depths": (2, 1), "num_heads": (3, 6)},
        {(12, 3, 16, 16): 2, (3, 6, 16, 16): 1},
    ),
    "pvt": (
        "pvt_v2_b0",
        {"num_classes": 5, "embed_dims": (8, 16, 20, 32), "depths": (1, 1, 1, 1)},
        {(3, 1, 64, 1): 1, (3, 2, 16, 1): 1, (3, 5, 4, 1): 1, (3, 8, 1, 1): 1},
    ),
    "cait": (
        "cait_xxs24_224",
        {**SMALL, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4},
        {(3, 4, 16, 16): 2, (3, 4, 1, 17): 2},
    ),
    "xcit": ("xcit_nano_12_p16_224", {**VIT, "depth": 2, "num_heads": 4}, {(3, 4, 1, 17): 2}),
    "convit": ("convit_tiny", {**VIT, "depth": 11, "num_heads": 3}, {(3, 3, 16, 16): 10, (3, 3, 17, 17): 1}),
    "twins": (
        "twins_svt_small",
        {"img_size": 64, "num_classes": 5, "embed_dims": (8, 16, 32, 64), "depths": (2, 1, 1, 1), "wss": (4, 4, 4, 4)},
        {(48, 2, 16, 16): 1, (3, 2, 256, 4): 1, (12, 4, 16, 16): 1, (3, 8, 16, 16): 1, (3, 16, 16, 16): 1},
    ),
    "hiera": (
        "hiera_tiny_224",
        {"img_size": (64, 64), "num_classes": 5, "embed_dim": 8, "stages": (1, 1, 1, 1)},
        {(12, 1, 64, 64): 1, (12, 2, 16, 64): 1, (12, 4, 4, 16): 1, (3, 8, 4, 16): 1},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_every_family_and_changes_no_bit_of_the_logits(family):
    name, settings, shapes = FAMILIES[family]
    model = build(name, **settings)
    size = settings.get("img_size", 32)
    size = size if isinstance(size, int) else size[0]
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = attention_maps(model, images)
        assert torch.equal(found.logits, model(images))
        slow = attention_maps(fuse(model, False), images)
        alone = [attention_maps(model, image[None]) for image in images]
    counted = {}
    for maps in found.maps.values():
        counted[tuple(maps.shape)] = counted.get(tuple(maps.shape), 0) + 1
        assert maps.dtype == torch.float32
        assert bool((maps >= 0).all())
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(maps.shape[:-1]))
    assert counted == shapes
    channels = ["blocks.0.attn", "blocks.1.attn"] if family == "xcit" else []
    assert found.left_out == dict.fromkeys(channels, "attention between channels")
    for layer, maps in found.maps.items():
        torch.testing.assert_close(maps, slow.maps[layer], rtol=1e-4, atol=1e-6)
        one_by_one = torch.cat([each.maps[layer] for each in alone])  # windows of an image follow one another
        torch.testing.assert_close(maps, one_by_one, rtol=1e-4, atol=1e-6)


def test_a_gated_map_is_what_is_applied_to_the_values(images):
    """ConViT mixes the softmax of the content and that of the positions."""
    model = build("convit_tiny", **VIT)
    shown = []
    handle = model.blocks[0].attn.attn_drop.register_forward_hook(lambda module, given, out: shown.append(given[0]))
    found = attention_maps(model, images)
    handle.remove()
    assert torch.equal(found.maps["blocks.0.attn"], shown[0])


class Twice(nn.Module):
    """The same layer two times, and one that is called attention and has no softmax."""

    class LinearAttention(nn.Module):
        def forward(self, tokens):
            return tokens + tokens.mean(dim=1, keepdim=True)

    def __init__(self):
        super().__init__()
        self.attn = timm.layers.Attention(8, num_heads=2)
        self.other = self.LinearAttention()

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2)[..., :1].expand(-1, -1, 8)
        return self.other(self.attn(self.attn(tokens) + tokens)).mean(dim=1)


def test_layers_that_run_twice_have_two_maps_and_silent_ones_are_listed(images):
    found = attention_maps(Twice(), images[:, :, :4, :4])
    assert list(found.maps) == ["attn", "attn (2)"]
    assert list(found.left_out) == ["other"]
    assert "LinearAttention has no softmax weights" in found.left_out["other"]


class SharedAttention(nn.Module):
    """Fused attention with all its options: a scale of its own, a mask, and two heads of keys for four of queries."""

    def forward(self, images):
        tokens = images.flatten(2).reshape(len(images), 4, -1, 2)
        keys = tokens[:, :2].sin()
        mask = (torch.arange(8) % 3 > 0).expand(8, 8)
        return functional.scaled_dot_product_attention(
            tokens, keys, keys.cos(), attn_mask=mask, scale=0.25, enable_gqa=True
        ).sum(dim=(2, 3))


def test_all_options_of_fused_attention_are_respected():
    images = torch.rand(3, 4, 4, 4, generator=torch.Generator().manual_seed(6))
    tokens = images.double().flatten(2).reshape(3, 4, 8, 2)
    scores = 0.25 * torch.einsum("nhtd,nhsd->nhts", tokens, tokens[:, [0, 0, 1, 1]].sin())
    allowed = torch.arange(8) % 3 > 0
    expected = torch.where(allowed, scores.exp(), 0.0)
    expected = (expected / expected.sum(dim=-1, keepdim=True)).float()
    model = nn.Sequential(SharedAttention())
    for asked in (images, images.clone().requires_grad_()):  # with gradients the weights take part
        found = attention_maps(model, asked)
        torch.testing.assert_close(found.maps["0"], expected)
        torch.testing.assert_close(found.logits, model(images))


def test_nothing_of_the_model_changes(vit, images):
    model = NormalizedModel(vit, [0.5] * 3, [0.5] * 3).train()
    model.model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    flags = [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")]
    state = torch.random.get_rng_state()
    found = attention_maps(model, images)
    assert next(iter(found.maps)) == "model.blocks.0.attn"

    class Stop(Exception):
        pass

    def stop(_maps):
        raise Stop

    with pytest.raises(Stop):
        attention_maps(model, images, keep=stop)
    with pytest.raises(AssertionError):  # of timm, in the middle of the forward pass
        attention_maps(model, images[:, :, :24])
    assert [module.training for module in model.modules()] == modes
    assert [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")] == flags
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_kept_is_the_callers_choice(vit, images):
    found = attention_maps(vit, images, keep=lambda maps: maps.mean(dim=1))
    whole = attention_maps(vit, images)
    for layer, maps in whole.maps.items():
        assert torch.equal(found.maps[layer], maps.mean(dim=1))


@pytest.mark.parametrize("fused", [True, False])
def test_logits_can_be_differentiated_by_the_maps(vit, images, fused):
    def gradients(on):
        found = attention_maps(fuse(vit, on), images)
        return torch.autograd.grad(found.logits[:, 0].sum(), list(found.maps.values()))

    for ours, reference in zip(gradients(fused), gradients(False), strict=True):
        assert float(reference.abs().max()) > 0
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(3))},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
        {"enable_gqa": True},
    ],
    ids=["plain", "scale", "causal", "bias", "mask", "shared heads"],
)
def test_the_weights_are_those_of_fused_attention(options):
    random = torch.Generator().manual_seed(4)
    shared = 2 if options.get("enable_gqa") else 4
    query = torch.randn(2, 4, 5, 8, generator=random, dtype=torch.float64)
    key, value = (torch.randn(2, shared, 5, 8, generator=random, dtype=torch.float64) for _ in range(2))
    weights = attention_weights(query, key, **options)
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(weights @ value.repeat_interleave(4 // shared, dim=1), expected)


def test_half_precision_is_widened():
    query = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(5))
    assert attention_weights(query.bfloat16(), query.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SmallCNN(), "SmallCNN shows no attention between tokens .*no attention layer"),
        (nn.Sequential(Twice.LinearAttention()), "LinearAttention has no softmax weights"),
    ],
)
def test_models_without_attention_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(model, torch.rand(2, 1, 8, 8))


def test_only_modules_can_be_looked_into():
    with pytest.raises(TypeError, match="got function: pass the model itself"):
        attention_maps(lambda images: images, torch.rand(2, 1, 8, 8))
