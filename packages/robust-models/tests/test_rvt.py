"""Robust Vision Transformer: the published numbers, masks on other grids, and what timm expects."""

import copy

import pytest
import timm
import torch
from robust_models import rvt
from robust_models.attention import attention_maps
from robust_models.layers.paas import PAASAttention, resize_mask
from robust_models.rvt_blocks import Block
from timm.layers.drop import DropPath
from timm.models import get_model_input_config
from torch.nn import functional

PARAMETERS = {
    "rvt_tiny": 8_646_376,
    "rvt_small": 22_148_392,
    "rvt_base": 86_223_784,
    "rvt_tiny_plus": 10_951_336,
    "rvt_small_plus": 23_300_872,
    "rvt_base_plus": 88_528_744,
}
SMALL = {"img_size": 64, "depths": (2, 1), "num_classes": 5}


def small(name="rvt_tiny_plus", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **{**SMALL, "paas_blocks": 1 if name.endswith("plus") else 0, **options}).eval()


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["rvt_tiny", "rvt_small_plus"])
def test_reproduces_the_published_numbers(golden, name):
    golden(name).check(timm.create_model(name))


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_size_and_configuration(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(each.numel() for each in model.parameters()) == PARAMETERS[name]
    config = model.pretrained_cfg
    assert (config["mean"], config["std"]) == ((0.5,) * 3, (0.5,) * 3)
    assert (config["crop_pct"], config["interpolation"], config["input_size"]) == (0.9, "bicubic", (3, 224, 224))
    assert config["fixed_input_size"] is name.endswith("_plus")
    masks = [key for key in model.state_dict() if key.endswith("att_mask")]
    assert masks == [f"transformers.0.blocks.{index}.attn.att_mask" for index in range(len(masks))]
    assert len(masks) == {"rvt_tiny_plus": 10, "rvt_small_plus": 5, "rvt_base_plus": 5}.get(name, 0)
    width = model.state_dict()["transformers.0.blocks.0.norm1.weight"].numel()
    kernel = () if width == 768 else (1, 1)
    assert model.state_dict()["transformers.0.blocks.0.mlp.fc1.weight"].shape == (4 * width, width, *kernel)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rvt_tiny_plus", {"depths": (2, 1), "paas_blocks": 1}),
        ("rvt_base", {"depths": (3,), "num_heads": (3,)}),
    ],
    ids=["with masks, two stages", "one stage"],
)
def test_follows_the_protocol_of_timm(protocol, name, options):
    protocol(name, img_size=64, **options).check()


def test_the_base_model_is_a_plain_transformer_behind_the_stem():
    """Written once more with plain operations, in float64; its images are not square."""
    model = small("rvt_base_plus", img_size=(32, 48), depths=(2,), num_heads=(3,)).double()
    for each in (model.patch_embed.proj[1].running_mean, model.patch_embed.proj[1].running_var):
        each.add_(torch.rand(32, dtype=torch.float64))
    w, images = model.state_dict(), rand(2, 3, 32, 48).double()
    x = functional.conv2d(images, w["patch_embed.proj.0.weight"], w["patch_embed.proj.0.bias"], 2, 2)
    scale = w["patch_embed.proj.1.weight"] / (w["patch_embed.proj.1.running_var"] + 1e-5).sqrt()
    x = (x - w["patch_embed.proj.1.running_mean"][:, None, None]) * scale[:, None, None]
    x = functional.max_pool2d(x + w["patch_embed.proj.1.bias"][:, None, None], 3, 2, 1)
    x = functional.conv2d(x, w["patch_embed.proj.3.weight"], w["patch_embed.proj.3.bias"], 4)
    assert x.shape == (2, 192, 2, 3)
    x = x.flatten(2).transpose(1, 2)

    def normed(x, name):
        centred = x - x.mean(-1, keepdim=True)
        centred = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for index in range(2):
        block = f"transformers.0.blocks.{index}"
        qkv = linear(normed(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = (part.reshape(2, 6, 3, 64).transpose(1, 2) for part in qkv.split(192, dim=-1))
        scores = q @ k.mT / 8
        if index == 0:
            scores = scores * torch.sigmoid(w[f"{block}.attn.att_mask"])
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 6, 192)
        x = x + linear(mixed, f"{block}.attn.proj")
        hidden = linear(normed(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    expected = linear(normed(x.mean(1), "norm"), "head")
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-12)


def test_one_image_gives_one_row_of_logits():
    """The published head squeezes the batch away."""
    model = small()
    images = rand(2, 3, 64, 64)
    assert model(images[:1]).shape == (1, 5)
    torch.testing.assert_close(model(images[:1]), model(images)[:1])


def test_every_weight_is_initialised():
    """The published masks are whatever was in memory."""
    model, again = small("rvt_small_plus", depths=(2,)), small("rvt_small_plus", depths=(2,))
    mask = model.transformers[0].blocks[0].attn.att_mask
    assert mask.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("size", [32, (96, 32)], ids=str)
def test_takes_another_image_size_at_construction(size):
    """The published masks fit 224 pixels only, other sizes fail deep inside."""
    model = small(img_size=size)
    height, width = model.img_size
    assert model.transformers[0].blocks[0].attn.att_mask.shape[-1] == height * width // 256
    assert model(rand(1, 3, height, width)).shape == (1, 5)


def test_says_both_sizes_for_images_that_do_not_fit():
    with pytest.raises(ValueError, match="for images of 64 x 64 pixels, got 96 x 64"):
        small()(rand(1, 3, 96, 64))
    with pytest.raises(ValueError, match="for images of 64 x 64 pixels, got 32 x 32"):
        small().forward_intermediates(rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"images of 64 x 64 pixels and takes other multiples of 16, got 64 x 72"):
        small("rvt_tiny")(rand(1, 3, 64, 72))
    with pytest.raises(ValueError, match="positive multiple of 16, got 100"):
        small(img_size=100)
    with pytest.raises(ValueError, match="multiple of 16, got 70"):
        small().set_input_size(70)
    with pytest.raises(ValueError, match="depth and a number of heads"):
        small(depths=(1, 1, 1))
    with pytest.raises(ValueError, match="paas_blocks=3"):
        small(paas_blocks=3)


def test_without_masks_any_size_does():
    model = small("rvt_tiny")
    assert model(rand(1, 3, 96, 48)).shape == (1, 5)
    assert model.forward_features(rand(1, 3, 96, 48)).shape == (1, 384, 3, 2)


def test_a_file_for_another_size_has_its_masks_resized(tmp_path):
    source = small()
    mask = source.transformers[0].blocks[0].attn.att_mask
    mask.data.normal_()
    torch.save({"model": source.state_dict()}, tmp_path / "rvt.pth")
    overlay = {"file": str(tmp_path / "rvt.pth"), "num_classes": 5}
    model = timm.create_model(
        "rvt_tiny_plus", pretrained=True, pretrained_cfg_overlay=overlay, **{**SMALL, "paas_blocks": 1, "img_size": 96}
    ).eval()
    key = "transformers.0.blocks.0.attn.att_mask"
    torch.testing.assert_close(model.state_dict()[key], resize_mask(mask.detach(), (4, 4), (6, 6)))
    others = source.state_dict().keys() - {key}
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in others)
    assert model(rand(1, 3, 96, 96)).shape == (1, 5)
    resized = copy.deepcopy(source)
    resized.set_input_size(96)
    torch.testing.assert_close(resized(rand(1, 3, 96, 96)), model(rand(1, 3, 96, 96)))
    assert resized.transformers[0].blocks[0].attn.att_mask.requires_grad
    assert get_model_input_config(resized)["input_size"] == (3, 96, 96)


def test_the_filter_changes_nothing_else():
    model = small()
    weights = model.state_dict()
    for content in (weights, {"model": weights}):
        filtered = rvt.checkpoint_filter(content, model)
        assert list(filtered) == list(weights)
        assert all(filtered[name] is weights[name] for name in weights)
    assert rvt.checkpoint_filter({"other": torch.zeros(1)}, model) == {"other": torch.zeros(1)}
    flat = small(img_size=(32, 96)).state_dict()
    with pytest.raises(ValueError, match="for 12 tokens, which is no square grid, and the model has 16"):
        rvt.checkpoint_filter(flat, model)


def test_a_mask_means_the_same_on_another_grid():
    """Masks that look at a fixed distance look at the same distance, in images, on a finer grid."""
    model = small(paas_blocks=1)
    rows = torch.arange(16) // 4
    near = -(rows[:, None] - rows[None]).abs().float()
    model.transformers[0].blocks[0].attn.att_mask.data.copy_(near.expand(6, 16, 16))
    model.set_input_size(128)
    mask = model.transformers[0].blocks[0].attn.att_mask
    assert mask.shape == (6, 64, 64)
    top, middle = mask[0, 4, :].reshape(8, 8), mask[0, 28, :].reshape(8, 8)
    assert (top[1:].diff(dim=0) < 0).all()
    assert middle[:, 4].argmax() in (3, 4)
    torch.testing.assert_close(top, top[:, :1].expand(8, 8), rtol=0, atol=1e-5)


def test_attention_can_be_read():
    model, images = small().double(), rand(2, 3, 64, 64).double()
    with torch.no_grad():
        found = attention_maps(model, images)
    assert {name: tuple(each.shape) for name, each in found.maps.items()} == {
        "transformers.0.blocks.0.attn": (2, 6, 16, 16),
        "transformers.0.blocks.1.attn": (2, 6, 16, 16),
        "transformers.1.blocks.0.attn": (2, 12, 4, 4),
    }
    assert not found.left_out
    assert model.get_attention_modules() == [model.get_submodule(name) for name in found.maps]
    assert all(isinstance(each, PAASAttention) for each in model.get_attention_modules())
    for each in found.maps.values():
        torch.testing.assert_close(each.sum(-1), torch.ones_like(each[..., 0]))
    torch.testing.assert_close(found.logits, model(images), rtol=0, atol=0)


def test_stochastic_depth_grows_with_the_block_and_dropout_is_in_the_feed_forward_layers():
    model = small(depths=(2, 2), drop_path_rate=0.2, drop_rate=0.3)
    rates = [block.drop_path.drop_prob for block in model.modules() if isinstance(block, Block)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15])
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    images = rand(4, 3, 64, 64)
    assert (model.train()(images) != model(images)).any()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | DropPath):
            module.eval()
    torch.testing.assert_close(model(images), model(images))


def test_sorts_its_parameters_by_depth():
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher()).values()
    assert [sorted({name.rpartition(".blocks.")[0] or name.split(".")[0] for name in group}) for group in groups] == [
        ["patch_embed"], ["transformers.0"], ["transformers.0"], ["pools"], ["transformers.1"], ["head", "norm"],
    ]  # fmt: skip
    assert model.no_weight_decay() == {"transformers.0.blocks.0.attn.att_mask"}


def test_gives_features_of_either_stage_alone():
    images = rand(1, 3, 64, 64)
    full = small("rvt_tiny_plus").forward_intermediates(images, intermediates_only=True)
    assert [tuple(each.shape[1:]) for each in full] == [(192, 4, 4), (192, 4, 4), (384, 2, 2)]
    for index in range(3):
        torch.manual_seed(0)
        part = timm.create_model("rvt_tiny_plus", features_only=True, out_indices=[index], paas_blocks=1, **SMALL)
        (found,) = part.eval()(images)
        torch.testing.assert_close(found, full[index])
        blocks = [name for name, module in part.named_modules() if isinstance(module, Block)]
        assert len(blocks) == index + 1
    with pytest.raises(ValueError, match="got output_fmt='NLC', norm=False"):
        small().forward_intermediates(images, output_fmt="NLC")
    with pytest.raises(ValueError, match="global_pool='max'"):
        small().reset_classifier(3, "max")
