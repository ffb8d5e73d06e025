"""Attention scaled by position: its formula, its masks on other grids, and its addition to vision transformers."""

import copy

import pytest
import timm
import torch
from robust_models import create_model
from robust_models.attention import attention_maps
from robust_models.layers.paas import (
    PAASAttention,
    PAASViTAttention,
    convert_paas,
    position_aware_scores,
    resize_mask,
)
from timm.layers.attention import Attention
from timm.layers.norm import LayerNorm
from timm.models import VisionTransformer
from torch import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vit(**options):
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 3, "num_classes": 5}
    return VisionTransformer(**{**settings, **options}).double().eval()


@pytest.mark.shared_data
def test_reproduces_the_published_numbers(golden, named):
    stored = golden("modules").stored
    seed, case = stored["seed"], stored["cases"]["paas"]
    query, key, value = (torch.from_numpy(named(f"{seed}:{name}", 144).reshape(2, 2, 9, 4)) for name in "qkv")
    mask = torch.from_numpy(2 * named(f"{seed}:att_mask", 162).reshape(2, 9, 9))
    weights = position_aware_scores(query, key, mask.sigmoid(), 0.5).softmax(-1)
    torch.testing.assert_close(weights, tensor(case["attention"]), rtol=0, atol=1e-11)
    attention = PAASAttention(8, heads=2, n_tokens=9).double()
    attention.att_mask.data.copy_(mask)
    attention.qkv, attention.proj = nn.Identity(), nn.Identity()
    tokens = torch.stack([query, key, value]).permute(1, 3, 0, 2, 4).flatten(2)  # the order in which qkv answers
    output = attention(tokens).reshape(2, 9, 2, 4).transpose(1, 2)
    torch.testing.assert_close(output, tensor(case["output"]), rtol=0, atol=1e-11)


def tensor(stored):
    return torch.tensor(stored["data"], dtype=torch.float64).reshape(stored["shape"])


def test_is_attention_with_scores_times_the_sigmoid_of_the_mask():
    """Written once more, one head, query and key at a time."""
    attention = PAASAttention(6, heads=2, n_tokens=5).double()
    attention.att_mask.data.copy_(3 * random(2, 5, 5, seed=1))
    tokens = random(2, 5, 6, seed=2)
    query, key, value = attention.qkv(tokens).split(6, dim=-1)
    mixed = torch.zeros(2, 5, 6, dtype=torch.float64)
    for image in range(2):
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            for i in range(5):
                scores = [
                    query[image, i, part] @ key[image, j, part] / 3**0.5 / (1 + (-attention.att_mask[head, i, j]).exp())
                    for j in range(5)
                ]
                weights = torch.stack(scores).exp()
                mixed[image, i, part] = (weights / weights.sum()) @ value[image, :, part]
    torch.testing.assert_close(attention(tokens), attention.proj(mixed), rtol=1e-12, atol=1e-12)


def test_without_a_mask_it_is_plain_attention_over_any_number_of_tokens():
    plain, masked = PAASAttention(6, 2, 5, mask=False).double(), PAASAttention(6, 2, 5).double()
    masked.load_state_dict({**plain.state_dict(), "att_mask": torch.full((2, 5, 5), 50.0)})  # sigmoid(50) is 1
    tokens = random(2, 5, 6)
    torch.testing.assert_close(plain(tokens), masked(tokens), rtol=1e-12, atol=1e-12)
    assert "att_mask" not in plain.state_dict()
    assert plain(random(1, 7, 6)).shape == (1, 7, 6)


def test_starts_with_a_small_random_mask():
    """The published code leaves it as the memory was."""
    torch.manual_seed(0)
    mask = PAASAttention(8, heads=4, n_tokens=64).att_mask
    assert mask.shape == (4, 64, 64)
    assert abs(mask.mean().item()) < 1e-3
    assert mask.std().item() == pytest.approx(0.02, rel=0.03)
    torch.manual_seed(0)
    torch.testing.assert_close(PAASAttention(8, heads=4, n_tokens=64).att_mask, mask, rtol=0, atol=0)


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match="10 and 4 heads"):
        PAASAttention(10, heads=4, n_tokens=5)
    with pytest.raises(ValueError, match="mask for 5 tokens, got 6"):
        PAASAttention(8, heads=4, n_tokens=5)(torch.zeros(1, 6, 8))


def test_resizes_the_grid_of_the_keys_and_that_of_the_queries_bicubically():
    """A mask that is a product of a map of queries and a map of keys resizes as the two maps do."""
    old, new = (4, 6), (7, 5)
    queries, keys = random(3, *old, seed=1), random(3, *old, seed=2)
    mask = torch.einsum("hij,hkl->hijkl", queries, keys).reshape(3, 24, 24)

    def resized(maps):
        return nn.functional.interpolate(maps[None], size=new, mode="bicubic")[0]

    expected = torch.einsum("hij,hkl->hijkl", resized(queries), resized(keys)).reshape(3, 35, 35)
    torch.testing.assert_close(resize_mask(mask, old, new), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(resize_mask(mask, old, old), mask, rtol=0, atol=0)
    torch.testing.assert_close(resize_mask(torch.full((2, 24, 24), 0.3), old, new), torch.full((2, 35, 35), 0.3))
    assert resize_mask(mask.bfloat16(), old, new).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="4 x 5 tokens is 20 x 20, got 24 x 24"):
        resize_mask(mask, (4, 5), new)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 4},
        {"qk_norm": True, "scale_attn_norm": True, "norm_layer": LayerNorm},
    ],
    ids=["class token", "no class token", "register tokens", "norms"],
)
def test_conversion_does_not_change_what_a_model_answers_and_can_be_learnt(options):
    model, images = vit(**options), random(2, 3, 32, 32)
    converted = convert_paas(copy.deepcopy(model), 2)
    torch.testing.assert_close(converted(images), model(images), rtol=1e-12, atol=1e-12)
    new = converted.state_dict().keys() - model.state_dict().keys()
    assert new == {"blocks.0.attn.att_mask", "blocks.1.attn.att_mask"}
    converted(images).square().sum().backward()
    mask = converted.blocks[1].attn.att_mask
    assert mask.shape == (3, 16, 16)
    assert mask.grad.abs().min() > 0


def test_a_gate_of_the_attention_stays():
    torch.manual_seed(0)
    plain = Attention(8, num_heads=2, gated=True, qkv_bias=True).double().eval()
    model = vit(depth=1, embed_dim=8, num_heads=2)
    model.blocks[0].attn = plain
    images = random(2, 3, 32, 32)
    expected = model(images)
    torch.testing.assert_close(convert_paas(model, 1)(images), expected, rtol=1e-12, atol=1e-12)


def test_scales_scores_between_patches_and_leaves_those_of_class_tokens():
    """With a mask of minus infinity, patches weigh all patches alike and the class token by their score."""
    model, images = convert_paas(vit(depth=1), [0]), random(1, 3, 32, 32)
    attention = model.blocks[0].attn
    plain = attention_maps(model, images).maps["blocks.0.attn"]
    attention.att_mask.data.fill_(-100)
    maps = attention_maps(model, images).maps["blocks.0.attn"]
    assert maps.shape == (1, 3, 17, 17)
    torch.testing.assert_close(maps[:, :, 0], plain[:, :, 0])
    patches = maps[:, :, 1:, 1:]
    torch.testing.assert_close(patches, patches[..., :1].expand_as(patches))
    mask = random(3, 16, 16, seed=3)
    attention.att_mask.data.copy_(mask)
    factor = torch.ones(3, 17, 17, dtype=torch.float64)
    factor[:, 1:, 1:] = 2 * mask.sigmoid()
    logits = plain.log()  # scores up to a constant per row, which is known from the class token: its score is kept
    seen = attention_maps(model, images).maps["blocks.0.attn"].log()
    scores = attention.qkv(model.blocks[0].norm1(model._pos_embed(model.patch_embed(images))))
    query, key, _ = scores.reshape(1, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
    raw = query @ key.transpose(-2, -1) / 8**0.5
    torch.testing.assert_close(logits, raw.log_softmax(-1))
    torch.testing.assert_close(seen, (raw * factor).log_softmax(-1))


def test_conversion_keeps_what_belongs_to_the_layer():
    model = vit().float().train()
    model.requires_grad_(False)
    attention, calls = model.blocks[1].attn, []
    attention.register_forward_hook(lambda *_: calls.append(1))
    attention.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convert_paas(model, [1])
    attention = model.blocks[1].attn
    assert type(attention) is PAASViTAttention
    assert not attention.training
    assert model.blocks[0].attn.training
    assert attention.att_mask.dtype == torch.float32
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["blocks.1.attn.att_mask"]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    model(torch.rand(1, 3, 32, 32))
    assert calls == [1]


def test_conversion_may_be_repeated_and_is_recorded():
    model = convert_paas(vit(), 1)
    model.blocks[0].attn.att_mask.data.fill_(1)
    again = convert_paas(model, 2)
    assert again is model
    assert (model.blocks[0].attn.att_mask == 1).all()
    assert (model.blocks[1].attn.att_mask == 0).all()
    assert [done.layers for done in model.robust_conversions] == [("blocks.0.attn",), ("blocks.1.attn",)]
    convert_paas(model, 2)
    assert len(model.robust_conversions) == 2
    twin = convert_paas(vit(), 2)
    twin.load_state_dict(model.state_dict())
    images = random(1, 3, 32, 32)
    torch.testing.assert_close(twin(images), copy.deepcopy(model)(images), rtol=0, atol=0)


def test_finds_the_transformer_behind_a_normalisation():
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, model_args={"depth": 2}).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = model(images)
    torch.testing.assert_close(convert_paas(model, 1)(images), expected)
    assert model.robust_conversions[0].layers == ("model.blocks.0.attn",)
    assert list(attention_maps(model, images).maps) == ["model.blocks.0.attn", "model.blocks.1.attn"]


@pytest.mark.parametrize("blocks", [0, 4, [], [3], [-1]])
def test_refuses_blocks_that_do_not_exist(blocks):
    with pytest.raises(ValueError, match=r"blocks of this model are 0 to 2, got blocks="):
        convert_paas(vit(), blocks)


def test_refuses_models_and_layers_without_plain_attention():
    with pytest.raises(TypeError, match="VisionTransformer, and ResNet has none"):
        convert_paas(timm.create_model("resnet18"), 1)
    with pytest.raises(TypeError, match=r"blocks.0.attn is a DiffAttention"):
        convert_paas(vit(attn_layer="diff"), 1)
    with pytest.raises(ValueError, match="mask for 16 tokens, got 36"):
        convert_paas(vit(dynamic_img_size=True), 1)(random(1, 3, 48, 48))


def test_a_converted_model_can_be_exported_and_compiled():
    model, images = convert_paas(vit(depth=1), 1), random(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), logits)
        torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(images), logits)
