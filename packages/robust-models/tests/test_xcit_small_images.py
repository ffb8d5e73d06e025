"""XCiT with smaller patches against stored numbers and a network that was built so."""

import copy
import fnmatch

import pytest
import timm
import torch
from robust_models import xcit_small_images
from robust_models.xcit_small_images import adapt_patch_size
from torch import nn

PUBLISHED = {
    "xcit_small_12_p16_224": 26_253_304,  # timm's
    "xcit_medium_12_p16_224": 46_401_160,
    "xcit_large_12_p16_224": 103_792_648,
    "xcit_small_12_p4_32": 25_872_154,
    "xcit_medium_12_p4_32": 45_893_290,
    "xcit_large_12_p4_32": 103_031_338,
}
SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2}


def strides(model):
    return [layer.stride[0] for layer in model.patch_embed.proj.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(each.numel() for each in model.parameters()) == PUBLISHED[name]
    assert strides(model) == ([1, 1, 2, 2] if name.endswith("_32") else [2, 2, 2, 2])


@pytest.mark.shared_data
def test_answers_as_published(golden):
    golden("xcit_small_12_p4_32").check(timm.create_model("xcit_small_12_p4_32"))


def test_follows_the_protocol_of_timm(protocol):
    kept = protocol("xcit_small_12_p4_32", **{**SMALL, "img_size": 16})
    kept.check()
    model = kept.build()
    names = [key for key, _ in model.named_parameters()]
    for pattern in model.no_weight_decay():
        assert fnmatch.filter(names, pattern)


@pytest.mark.parametrize(("old", "new"), [(16, 16), (16, 8), (16, 4), (16, 2), (8, 4), (8, 2), (8, 1)])
def test_smaller_patches_are_larger_maps_of_the_same_weights(old, new):
    torch.manual_seed(0)
    model = timm.create_model(f"xcit_nano_12_p{old}_224", img_size=64, depth=1).eval()
    state = copy.deepcopy(model.state_dict())
    assert adapt_patch_size(model, new) is model
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    convolutions = len(strides(model))
    tokens, grid = model.patch_embed(torch.rand(1, 3, 64, 64))
    assert tuple(grid) == (64 // new, 64 // new)
    assert model.patch_embed.patch_size == new
    assert model.patch_embed.num_patches == tokens.shape[1] == (64 // new) ** 2
    skipped = (old // new).bit_length() - 1
    assert strides(model) == [1] * skipped + [2] * (convolutions - skipped)
    assert {info["reduction"] for info in model.feature_info} == {new}


def test_adapting_twice_is_adapting_once():
    with torch.device("meta"):
        twice, once = (timm.create_model("xcit_nano_12_p16_224", depth=1) for _ in range(2))
    adapt_patch_size(adapt_patch_size(twice, 8), 4)
    adapt_patch_size(once, 4)
    assert strides(twice) == strides(once) == [1, 1, 2, 2]
    assert twice.patch_embed.num_patches == once.patch_embed.num_patches == 56 * 56


def test_the_network_for_small_images_is_the_adapted_one():
    torch.manual_seed(0)
    model = timm.create_model("xcit_small_12_p4_32", num_classes=5, **SMALL).eval()
    large = timm.create_model("xcit_small_12_p16_224", num_classes=5, **SMALL).eval()
    large.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert (large(images) - model(images)).abs().max() > 1e-4
    torch.testing.assert_close(adapt_patch_size(large, 4)(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("new", [0, -4, 3, 5, 12, 32, 0.5])
def test_says_which_patches_are_possible(new):
    with torch.device("meta"):
        model = timm.create_model("xcit_nano_12_p16_224", depth=1)
    with pytest.raises(ValueError, match=f"16, 8, 4, 2, 1 pixels wide, got new={new}"):
        adapt_patch_size(model, new)
    assert strides(model) == [2, 2, 2, 2]


def test_small_images_may_have_any_size_of_whole_patches():
    model = timm.create_model("xcit_small_12_p4_32", img_size=(40, 28), num_classes=3, **SMALL).eval()
    assert model.patch_embed.img_size == (40, 28)
    assert model.patch_embed.num_patches == 70
    assert model(torch.rand(1, 3, 40, 28)).shape == (1, 3)
    with pytest.raises(ValueError, match="multiple of 4, got 30"):
        timm.create_model("xcit_small_12_p4_32", img_size=30, **SMALL)


@pytest.mark.parametrize(("name", "patch"), [("xcit_small_12_p4_32", 4), ("xcit_medium_12_p16_224", 16)])
def test_images_that_the_patches_do_not_divide_are_taken_as_timm_takes_them(name, patch):
    """The number of patches is rounded up."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **SMALL).eval()
    images = torch.rand(2, 3, 2 * patch + 1, 3 * patch - 1)
    output, (last,) = model.forward_intermediates(images, indices=1)
    assert last.shape[2:] == (3, 3)
    assert output.shape[1] == 1 + 9
    torch.testing.assert_close(model.forward_head(output), model(images))
    if patch == 16:
        timms = timm.create_model("xcit_small_12_p16_224", num_classes=3, **SMALL).eval()
        timms.load_state_dict(model.state_dict())
        torch.testing.assert_close(timms(images), model(images), rtol=0, atol=0)


def test_weights_for_large_patches_start_the_network_for_small_images(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("xcit_small_12_p16_224", num_classes=10, **SMALL)
    torch.save({"model": source.state_dict()}, tmp_path / "xcit.pth")
    overlay = {"file": str(tmp_path / "xcit.pth")}
    loaded = timm.create_model("xcit_small_12_p4_32", pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_pixels_of_imagenet_go_straight_in_and_cifar_is_normalised():
    configs = {name: timm.models.get_pretrained_cfg(name) for name in PUBLISHED if name in xcit_small_images.__dict__}
    assert len(configs) == 5
    for name, config in configs.items():
        assert config.mean == ((0.4914, 0.4822, 0.4465) if name.endswith("_32") else (0.0, 0.0, 0.0))
        assert config.num_classes == (10 if name.endswith("_32") else 1000)
