"""Convolutional stems against stored numbers and a plain rewrite, and the conversion of timm's models."""

import copy

import pytest
import timm
import torch
from robust_models import convstem
from robust_models.convstem import ConvStem, convert_convstem
from timm.models import group_parameters

PUBLISHED = {
    "convnext_tiny_cvst": 28_627_432,
    "convnext_small_cvst": 50_261_992,
    "convnext_base_cvst": 88_753_416,
    "convnext_large_cvst": 198_134_680,
    "vit_small_cvst": 22_777_576,
    "vit_base_cvst": 87_147_112,
}
SMALL_VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 64}
SMALL_CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}


def count(model):
    return sum(each.numel() for each in model.parameters())


def stem_parameters(widths, last=None):
    """Convolutions with bias and norms, by hand."""
    total, before = 0, 3
    for width in widths:
        total += 9 * before * width + 3 * width
        before = width
    return total + (before + 1) * last if last else total


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        assert count(timm.create_model(name)) == PUBLISHED[name]


def test_sizes_that_are_not_printed_follow_from_the_base():
    with torch.device("meta"):
        medium, base = timm.create_model("vit_medium_cvst"), timm.create_model("deit3_medium_patch16_224")
        iso = timm.create_model("convnext_iso_cvst")
    stem = stem_parameters((48, 96, 192, 384), last=512)
    assert count(medium) == count(base) - (3 * 16 * 16 + 1) * 512 + stem
    block = 49 * 384 + 384 + 2 * 384 + 2 * 4 * 384 * 384 + 5 * 384
    assert count(iso) == stem_parameters((48, 96, 192, 384), last=384) + 18 * block + 2 * 384 + 385 * 1000


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["convnext_tiny_cvst", "vit_small_cvst"])
def test_answers_as_published(name, golden):
    golden(name).check(timm.create_model(name))


@pytest.mark.parametrize("last", [None, 5])
def test_stem_is_convolution_norm_gelu(last):
    """Written once more with plain operations, in float64."""
    torch.manual_seed(0)
    stem = ConvStem(3, (4, 6), (2, 1), last).double()
    for parameter in stem.parameters():
        torch.nn.init.normal_(parameter)
    w = stem.state_dict()
    x = images = torch.rand(2, 3, 10, 9, dtype=torch.float64)
    for index, stride in ((0, 2), (3, 1)):
        x = torch.conv2d(x, w[f"stem.{index}.weight"], w[f"stem.{index}.bias"], stride=stride, padding=1)
        deviation = x - x.mean(1, keepdim=True)
        x = deviation / (deviation.square().mean(1, keepdim=True) + 1e-6).sqrt()
        x = x * w[f"stem.{index + 1}.weight"][:, None, None] + w[f"stem.{index + 1}.bias"][:, None, None]
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    if last:
        x = torch.conv2d(x, w["stem.6.weight"], w["stem.6.bias"])
    torch.testing.assert_close(stem(images), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "widths", "strides"),
    [
        ("convnext_atto", (20, 40), (2, 2)),
        ("convnext_tiny", (48, 96), (2, 2)),
        ("convnext_small", (48, 96), (2, 2)),
        ("convnext_base", (64, 96, 128), (2, 2, 1)),
        ("convnext_large", (96, 144, 192), (2, 2, 1)),
        ("convnext_xlarge", (128, 192, 256), (2, 2, 1)),
        ("deit_small_patch16_224", (48, 96, 192, 384, 384), (2, 2, 2, 2, 1)),
        ("deit3_medium_patch16_224", (48, 96, 192, 384, 512), (2, 2, 2, 2, 1)),
        ("vit_tiny_patch16_224", (48, 96, 192, 384, 192), (2, 2, 2, 2, 1)),
    ],
)
def test_conversion_picks_the_stem_by_architecture(name, widths, strides):
    with torch.device("meta"):
        model = convert_convstem(timm.create_model(name))
    (stem,) = [each for each in model.modules() if isinstance(each, ConvStem)]
    layers = [each for each in stem.modules() if isinstance(each, torch.nn.Conv2d)]
    assert tuple(each.out_channels for each in layers) == widths
    assert tuple(each.stride[0] for each in layers) == strides
    assert model.get_submodule(model.pretrained_cfg["first_conv"]) is layers[0]


@pytest.mark.parametrize(
    ("name", "sizes", "replaced"),
    [("vit_base_patch16_224", SMALL_VIT, "patch_embed"), ("convnext_tiny", SMALL_CONVNEXT, "stem")],
)
def test_conversion_keeps_the_rest(name, sizes, replaced):
    torch.manual_seed(0)
    model = timm.create_model(name, in_chans=4, num_classes=3, **sizes).double().eval()
    state = copy.deepcopy(model.state_dict())
    assert convert_convstem(model) is model
    kept = [key for key in state if not key.startswith(replaced)]
    found = model.state_dict()
    assert [key for key in found if not key.startswith(replaced)] == kept
    assert all(torch.equal(found[key], state[key]) for key in kept)
    assert {value.dtype for value in found.values()} == {torch.float64}
    assert not any(module.training for module in model.modules())
    assert model(torch.rand(2, 4, 64, 64, dtype=torch.float64)).shape == (2, 3)
    again = convert_convstem(model).state_dict()
    assert all(torch.equal(again[key], value) for key, value in found.items())
    if name.startswith("convnext"):
        assert model.train()(torch.rand(2, 4, 96, 64, dtype=torch.float64)).shape == (2, 3)


def test_conversion_says_what_it_cannot_do():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="ConvNeXt and VisionTransformer, got ResNet"):
            convert_convstem(timm.create_model("resnet18"))
        with pytest.raises(ValueError, match=r"patches of 16 pixels.*kernel_size=\(32, 32\)"):
            convert_convstem(timm.create_model("vit_base_patch32_224"))
        with pytest.raises(ValueError, match="patches of 4 or 16 pixels"):
            convert_convstem(timm.create_model("convnext_nano_ols"))  # overlapping convolutions


def test_convnext_follows_the_protocol_of_timm(protocol):
    protocol("convnext_tiny_cvst", side=64, **SMALL_CONVNEXT).check()


def test_isotropic_convnext_follows_the_protocol_of_timm(protocol):
    kept = protocol("convnext_iso_cvst", side=64, dim=16, depth=3)
    kept.builds_the_same_under_one_seed()
    kept.answers_in_any_shape()
    kept.gives_features_and_heads()
    kept.trains()
    kept.saves_memory_on_request()
    kept.tells_groups_of_parameters()


def test_transformer_follows_the_protocol_of_timm(protocol):
    kept = protocol("vit_medium_cvst", **SMALL_VIT)
    kept.check()
    model = kept.build()
    groups = group_parameters(model, model.group_matcher())
    assert "patch_embed.proj.stem.12.weight" in groups[0]


@pytest.mark.parametrize("name", ["vit_small_cvst", "vit_base_cvst"])
def test_transformers_take_other_sizes(name):
    model = timm.create_model(name, img_size=(48, 80), depth=1, num_classes=2).eval()
    assert model(torch.rand(1, 3, 48, 80)).shape == (1, 2)
    with pytest.raises(AssertionError, match=r"\(224\) doesn't match model \(48\)"):
        model(torch.rand(1, 3, 224, 224))


def test_only_the_small_transformer_wants_normalised_images():
    means = {
        name: timm.models.get_pretrained_cfg(name).mean for name in [*PUBLISHED, "vit_medium_cvst", "convnext_iso_cvst"]
    }
    assert means.pop("vit_small_cvst") == (0.485, 0.456, 0.406)
    assert set(means.values()) == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_reads_files_in_timms_names(wrapper):
    torch.manual_seed(0)
    for name, sizes in (("convnext_tiny_cvst", SMALL_CONVNEXT), ("vit_medium_cvst", SMALL_VIT)):
        source, target = (timm.create_model(name, num_classes=3, **sizes) for _ in range(2))
        file = {wrapper: source.state_dict()} if wrapper else source.state_dict()
        target.load_state_dict(convstem.checkpoint_filter(file, target))
        assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_resizes_positions():
    torch.manual_seed(0)
    source = timm.create_model("vit_small_cvst", **SMALL_VIT)
    target = timm.create_model("vit_small_cvst", **{**SMALL_VIT, "img_size": 96})
    target.load_state_dict(convstem.checkpoint_filter(source.state_dict(), target))
    torch.testing.assert_close(target.pos_embed[:, 0], source.pos_embed[:, 0], rtol=0, atol=0)
    assert target.pos_embed.shape == (1, 37, 32)


def test_reads_the_layer_scale_of_deit_authors():
    model = timm.create_model("vit_medium_cvst", **SMALL_VIT)
    file = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for key, value in model.state_dict().items()
    }
    assert "blocks.0.gamma_1" in file
    fitted = convstem.checkpoint_filter({"model": file}, model)
    assert fitted.keys() == model.state_dict().keys()


def test_reads_the_names_of_convnexts_authors():
    """`dwconv`, `pwconv1`, `pwconv2`, and blocks without stages in the isotropic network."""
    torch.manual_seed(0)
    model = timm.create_model("convnext_iso_cvst", dim=12, depth=2, num_classes=3)
    names = {
        "stages.0.blocks": "blocks",
        "conv_dw": "dwconv",
        "mlp.fc": "pwconv",
        "head.norm": "norm",
        "head.fc": "head",
    }
    file = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        file[key] = value
    assert {"blocks.1.dwconv.weight", "blocks.0.pwconv1.bias", "norm.weight", "head.bias"} <= file.keys()
    assert convstem.isotropic_width({"model": file}) == 12
    fitted = convstem.checkpoint_filter({"model": file}, model)
    assert fitted.keys() == model.state_dict().keys()
    assert all(torch.equal(value, fitted[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="12 wide, the network 20: build it with dim=12"):
        convstem.checkpoint_filter(file, timm.create_model("convnext_iso_cvst", dim=20, depth=2, num_classes=3))
    with pytest.raises(ValueError, match="not the weights of a ConvNeXt"):
        convstem.isotropic_width({"fc.weight": torch.zeros(1)})


def test_isotropic_network_keeps_one_map():
    options = {"dim": 12, "depth": 3, "drop_path_rate": 0.2}
    model = timm.create_model("convnext_iso_cvst", **options).eval()
    images = torch.rand(1, 3, 64, 48)
    output, (found,) = model.forward_intermediates(images)
    assert found.shape == (1, 12, 4, 3)
    torch.testing.assert_close(output, model.forward_features(images))
    (features,) = timm.create_model("convnext_iso_cvst", features_only=True, **options)(images)
    assert features.shape == found.shape
    assert model.feature_info == [{"num_chs": 12, "reduction": 16, "module": "stages.0"}]
    rates = [getattr(block.drop_path, "drop_prob", 0) for block in model.stages[0].blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert not any("gamma" in key for key in model.state_dict())
