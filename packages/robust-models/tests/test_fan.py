"""Fully attentional networks: the published numbers, their two kinds of attention, and what timm expects."""

import math

import pytest
import timm
import torch
from robust_models import fan
from robust_models.attention import attention_maps
from robust_models.fan_blocks import ChannelAttention, FANBlock, NeighbourMlp, TokenAttention
from robust_models.fan_stem import HybridStem
from timm.models import get_model_input_config
from torch import nn
from torch.nn import functional

SIZES = {
    "fan_tiny_12_p16_224": (7_319_920, 12),
    "fan_small_12_p16_224": (28_345_336, 12),
    "fan_base_18_p16_224": (54_350_320, 18),
    "fan_large_24_p16_224": (80_574_100, 24),
    "fan_tiny_8_p4_hybrid": (7_467_240, 8),
    "fan_small_12_p4_hybrid": (26_117_944, 10),
    "fan_base_16_p4_hybrid": (50_475_048, 16),
    "fan_large_16_p4_hybrid": (76_855_140, 22),
}


def small(name="fan_tiny_12_p16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **{"depth": 1, "num_classes": 5, **options}).eval()


def rand(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def exact_positions(height, width):
    """The position code before its projection (64, height, width) by its formula, in float64."""
    code = torch.zeros(64, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            for start, index, count in ((0, row, height), (32, column, width)):
                angle = 2 * math.pi * (index + 1) / (count + 1e-6)
                for channel in range(32):
                    wave = math.cos if channel % 2 else math.sin
                    code[start + channel, row, column] = wave(angle / 10000 ** (2 * (channel // 2) / 32))
    return code


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name", ["fan_tiny_12_p16_224", pytest.param("fan_small_12_p4_hybrid", marks=pytest.mark.slow)]
)
def test_reproduces_the_published_numbers(golden, name):
    """timm computes the sines of the position code in float32; with those of float64 the rest agrees to 1e-6."""
    published, model = golden(name), timm.create_model(name)
    exact, layer = exact_positions(14, 14), model.pos_embed

    def positions(images, height, width):
        assert (height, width) == (14, 14)
        return layer.token_projection(exact.to(layer.token_projection.weight)).expand(images, -1, -1, -1)

    layer.forward = positions
    published.check(model)


@pytest.mark.shared_data
def test_reproduces_the_published_numbers_with_its_own_position_code(golden):
    published = golden("fan_tiny_12_p16_224")
    model = published.fill(timm.create_model("fan_tiny_12_p16_224")).double()
    logits = torch.tensor(published.stored["logits"], dtype=torch.float64)
    with torch.no_grad():
        found = model(published.images)
    assert (found - logits).abs().max() <= 1e-4 * published.stored["logit_rms"]


def test_numbers_positions_by_sines_and_cosines_of_rows_and_columns():
    layer = small("fan_tiny_8_p4_hybrid").double().pos_embed
    layer.token_projection.weight.data.normal_()
    with torch.no_grad():
        expected = layer.token_projection(exact_positions(3, 5))
        torch.testing.assert_close(layer(2, 3, 5), expected.expand(2, -1, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
def test_has_the_published_size_and_configuration(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    parameters, depth = SIZES[name]
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert len(model.blocks) == depth  # other than two of the names say
    config = model.pretrained_cfg
    assert (config["mean"], config["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (config["crop_pct"], config["interpolation"], config["input_size"]) == (1.0, "bicubic", (3, 224, 224))


@pytest.mark.parametrize(
    ("name", "options"),
    [("fan_tiny_12_p16_224", {}), ("fan_tiny_8_p4_hybrid", {"hybrid": (1, 1)})],
    ids=["ViT", "hybrid"],
)
def test_follows_the_protocol_of_timm(protocol, name, options):
    protocol(name, img_size=64, depth=3, **options).check()


def test_attention_between_tokens_is_that_of_torch():
    torch.manual_seed(0)
    ours, torchs = TokenAttention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    torchs.in_proj_weight.data = torch.cat([ours.q.weight, ours.kv.weight]).detach()
    torchs.in_proj_bias.data = torch.cat([ours.q.bias, ours.kv.bias]).detach()
    torchs.out_proj.load_state_dict(ours.proj.state_dict())
    tokens = rand(2, 7, 12).double()
    torch.testing.assert_close(ours(tokens), torchs(tokens, tokens, tokens)[0], rtol=1e-12, atol=1e-12)


def test_channel_attention_scales_channels_by_their_agreement_with_a_prototype():
    """Written once more, one head and one channel at a time."""
    torch.manual_seed(0)
    layer = ChannelAttention(6, num_heads=2).double().eval()
    layer.temperature.data.copy_(torch.tensor([0.7, 1.9]).reshape(2, 1, 1))
    x = 3 * rand(2, 12, 6).double()
    values = layer.norm_v(layer.mlp_v(x, 3, 4))
    query = layer.q(x)
    expected = torch.zeros_like(x)
    for image in range(2):
        for head in range(2):
            channels = range(3 * head, 3 * head + 3)
            prototype = sum(x[image, :, c].exp() / x[image, :, c].exp().sum() for c in channels) / 3
            for c in channels:
                weights = query[image, :, c].exp() / query[image, :, c].exp().sum()
                agreement = 1 / (1 + torch.exp(-(weights * prototype).sum()))
                expected[image, :, c] = layer.temperature[head, 0, 0] * agreement * values[image, :, c]
    torch.testing.assert_close(layer(x, 3, 4), expected, rtol=1e-12, atol=1e-12)
    assert layer.norm_v.eps == 1e-5


def test_values_see_neighbours_through_a_residual_of_convolutions():
    torch.manual_seed(0)
    layer = NeighbourMlp(4, 8).double().eval()
    layer.gamma.data.uniform_(0.5, 2)
    layer.dwconv.bn.running_mean.uniform_()
    x = rand(2, 15, 4).double()
    hidden = layer.fc1(x)
    maps = hidden.transpose(1, 2).reshape(2, 8, 3, 5)
    w = layer.dwconv
    maps = functional.gelu(functional.conv2d(maps, w.conv1.weight, w.conv1.bias, padding=1, groups=8))
    maps = (maps - w.bn.running_mean[:, None, None]) / (w.bn.running_var[:, None, None] + 1e-5).sqrt()
    maps = functional.conv2d(maps, w.conv2.weight, w.conv2.bias, padding=1, groups=8)
    expected = layer.fc2(hidden + layer.gamma * maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(layer(x, 3, 5), expected, rtol=1e-12, atol=1e-12)


def test_the_layer_norm_of_the_hybrid_stem_is_the_ordinary_one_in_every_layout():
    """An old timm took the unbiased variance where the input was not contiguous."""
    torch.manual_seed(0)
    stem = HybridStem(3, 16, (1, 1)).double().eval()
    images = rand(2, 3, 64, 32).double()
    expected, grid = stem(images)
    assert grid == (4, 2)
    norm = stem.backbone.stem[1]
    x = rand(2, 128, 4, 6, seed=3).double()
    centred = x - x.mean(1, keepdim=True)
    ordinary = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    layouts = [x, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)]
    for each in layouts:
        torch.testing.assert_close(norm(each), ordinary, rtol=1e-12, atol=1e-12)
    stem = stem.to(memory_format=torch.channels_last)
    for each in (images.to(memory_format=torch.channels_last), images.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(stem(each)[0], expected, rtol=1e-10, atol=1e-12)


def test_attention_can_be_read():
    model, images = small(depth=2).double(), rand(2, 3, 64, 48).double()
    with torch.no_grad():
        found = attention_maps(model, images)
    assert {name: tuple(each.shape) for name, each in found.maps.items()} == {
        "blocks.0.attn": (2, 4, 12, 12),
        "blocks.1.attn": (2, 4, 12, 12),
        "cls_attn_blocks.0.attn": (2, 4, 1, 13),
        "cls_attn_blocks.1.attn": (2, 4, 1, 13),
    }
    assert list(found.left_out) == ["blocks.0.mlp", "blocks.1.mlp"]
    assert model.get_attention_modules() == [model.get_submodule(name) for name in found.maps]
    for each in found.maps.values():
        torch.testing.assert_close(each.sum(-1), torch.ones_like(each[..., 0]))
    torch.testing.assert_close(found.logits, model(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["fan_tiny_12_p16_224", "fan_tiny_8_p4_hybrid"])
def test_takes_any_size_that_its_patches_fill(name):
    model = small(name)
    assert model.forward_features(rand(1, 3, 96, 32)).shape == (1, 13, 192)
    model.set_input_size((96, 32))
    assert get_model_input_config(model)["input_size"] == (3, 96, 32)
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 100 x 40: resize them, for example to 96 x 48"):
        model(rand(1, 3, 100, 40))
    with pytest.raises(ValueError, match="multiple of 16, got 100"):
        small(name, img_size=100)


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match="192 and 7 heads"):
        small(num_heads=7)
    with pytest.raises(ValueError, match="got 'max'"):
        small(global_pool="max")
    with pytest.raises(ValueError, match="got 'max'"):
        small().reset_classifier(3, "max")


def test_pools_the_class_token_or_the_others():
    model, images = small(), rand(2, 3, 32, 48)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 7, 192)
    torch.testing.assert_close(model(images), model.head(tokens[:, 0]))
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(images), tokens[:, 1:].mean(1))


def test_old_files_with_a_fused_class_attention_load(tmp_path):
    model = small()
    weights = model.state_dict()
    old = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[0] == "cls_attn_blocks" and parts[2] == "attn" and parts[3] in "qkv":
            fused = ".".join([*parts[:3], "qkv", parts[4]])
            old[fused] = torch.cat([old[fused], value]) if fused in old else value
        else:
            old[name] = value
    assert old["cls_attn_blocks.1.attn.qkv.weight"].shape == (576, 192)
    names = list(old)
    for content in (old, {"state_dict": old}, weights):
        filtered = fan.checkpoint_filter(content, model)
        assert filtered.keys() == weights.keys()
        assert all(torch.equal(filtered[name], value) for name, value in weights.items())
    assert list(old) == names
    torch.save({"state_dict": old}, tmp_path / "fan.pth.tar")
    overlay = {"file": str(tmp_path / "fan.pth.tar"), "num_classes": 5}
    loaded = timm.create_model(
        "fan_tiny_12_p16_224", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, depth=1
    )
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in weights.items())


def test_starts_as_described():
    model = small("fan_large_16_p4_hybrid", num_classes=1000, hybrid=(1, 1), drop_path_rate=0.3)
    published = timm.create_model("fan_tiny_12_p16_224", depth=2, drop_path_rate=0.3)
    block = model.blocks[0]
    stds = {
        block.attn.kv.weight: 0.02,
        block.mlp.mlp_v.fc1.weight: 0.02,
        block.mlp.mlp_v.dwconv.conv1.weight: math.sqrt(2 / 9),
        block.mlp.mlp_v.dwconv.conv2.weight: math.sqrt(2 / 9),
        model.patch_embed.backbone.stages[1].blocks[0].mlp.fc1.weight: 0.02,
        model.patch_embed.backbone.stem[0].weight: 0.02,
        model.patch_embed.proj.weight: 1 / math.sqrt(3 * 256 * 4),
        model.cls_attn_blocks[0].attn.k.weight: 0.02,
        model.cls_token: 0.02,
        model.head.weight: 0.02 * 0.001,
        published.head.weight: 0.02,
    }
    for weight, std in stds.items():
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert not model.head.bias.any()
    assert not block.mlp.mlp_v.dwconv.conv1.bias.any()
    for scale in (block.gamma1, block.gamma2, block.mlp.temperature, block.mlp.mlp_v.gamma):
        assert (scale == 1).all()
    assert (model.patch_embed.backbone.stages[0].blocks[0].gamma == 1e-6).all()
    assert [each.drop_path.drop_prob for each in published.blocks] == [0.3, 0.3]
    assert isinstance(published.blocks[0], FANBlock)


def test_leaves_class_token_and_position_code_out_of_weight_decay():
    expected = {"cls_token", "pos_embed.token_projection.weight", "pos_embed.token_projection.bias"}
    assert small().no_weight_decay() == expected
