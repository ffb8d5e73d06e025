"""WaveCNets: published sizes and numbers, the networks they are made from, and what they do on odd sizes."""

import copy

import pytest
import timm
import torch
from robust_models import NormalizedModel, wavecnet
from robust_models.layers.wavelet import LowPass
from robust_models.wavecnet import convert_wavelet
from torch import nn

SIZES = {
    "wave_resnet18": (11_689_512, 122),
    "wave_resnet34": (21_797_672, 218),
    "wave_resnet50": (25_557_032, 320),
    "wave_resnet50_db2": (25_557_032, 320),
    "wave_resnet101": (44_549_160, 626),
    "wave_resnet152": (60_192_808, 932),
}


def images(side, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def build(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **{"num_classes": 7, **options}).eval()


def lively(model):
    """Give the last batch norm of each block, which starts at zero, a weight."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.0)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_has_the_published_size(name):
    with torch.device("meta"):
        model = timm.create_model(name)
        plain = timm.create_model(name.replace("wave_", "").replace("_db2", ""))
    assert (sum(each.numel() for each in model.parameters()), len(model.state_dict())) == SIZES[name]
    last = "conv2" if name in ("wave_resnet18", "wave_resnet34") else "conv3"
    renamed = {f"layer{stage}.0.{last}.weight": f"layer{stage}.0.{last}.1.weight" for stage in (2, 3, 4)}
    expected = [(renamed.get(key, key), entry.shape) for key, entry in plain.state_dict().items()]
    assert [(key, entry.shape) for key, entry in model.state_dict().items()] == expected


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["wave_resnet50", "wave_resnet50_db2"])
def test_gives_the_stored_numbers(golden, name):
    golden(name).check(timm.create_model(name))


@pytest.mark.slow
def test_follows_the_protocol_of_timm(protocol):
    protocol("wave_resnet18", side=64).check()


@pytest.mark.parametrize("name", ["wave_resnet18", "wave_resnet50"])
def test_haar_is_a_network_with_twice_the_mean_of_four_pixels(name):
    """Which timm has, apart from the factor two."""
    model = lively(build(name)).double()
    plain = build(name.removeprefix("wave_"), aa_layer=nn.AvgPool2d).double()
    state = {
        key.replace("conv2.1.", "conv2.").replace("conv3.1.", "conv3."): w for key, w in model.state_dict().items()
    }
    plain.load_state_dict(state)
    pools = [module for module in plain.modules() if isinstance(module, nn.AvgPool2d)]
    assert len(pools) == 4
    for pool in pools:
        pool.register_forward_hook(lambda _module, _arguments, output: 2 * output)
    torch.testing.assert_close(model(images(64).double()), plain(images(64).double()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [32, 49, 75, 90])
@pytest.mark.parametrize("shortcut", [False, True])
def test_maps_are_as_large_as_without_wavelets(side, shortcut):
    """Odd maps too, on which the published code fails."""
    model, plain = build("wave_resnet18", wavelet="db2", wavelet_shortcut=shortcut), build("resnet18")
    found = model.forward_intermediates(images(side, 1), intermediates_only=True)
    expected = plain.forward_intermediates(images(side, 1), intermediates_only=True)
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert model(images(side, 1)).shape == (1, 7)


def test_halves_before_the_last_convolution_and_keeps_the_strided_shortcut():
    model = timm.create_model("wave_resnet50", wavelet="bior2.2")
    for stage in (model.layer2, model.layer3, model.layer4):
        block = stage[0]
        assert block.conv2.stride == (1, 1)
        assert isinstance(block.conv3[0], LowPass)
        assert block.conv3[0].wavelet == "bior2.2"
        assert block.downsample[0].stride == (2, 2)
    assert isinstance(model.maxpool, LowPass)
    assert sum(isinstance(each, LowPass) for each in model.modules()) == 4


def test_shortcuts_can_be_halved_by_wavelets():
    model, plain = build("wave_resnet50", wavelet_shortcut=True), build("wave_resnet50")
    keys = [
        key if key.startswith("layer1.") else key.replace("downsample.1.", "downsample.2.").replace("e.0.", "e.1.")
        for key in plain.state_dict()
    ]
    assert list(model.state_dict()) == keys
    block, x = lively(model).layer2[0], torch.rand(1, 256, 8, 8)
    pooled = 2 * torch.nn.functional.avg_pool2d(x, 2)
    shortcut = block.downsample[2](torch.conv2d(pooled, block.downsample[1].weight))
    torch.testing.assert_close(block.downsample(x), shortcut)


def test_starts_with_blocks_that_are_identities():
    model = timm.create_model("wave_resnet50")
    assert all(block.bn3.weight.eq(0).all() for stage in (model.layer1, model.layer4) for block in stage)
    weight = model.layer3[0].conv3[1].weight
    assert weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)  # Kaiming's, of the channels that go out


# Conversion


@pytest.mark.parametrize(("name", "wave"), [("resnet18", "wave_resnet18"), ("resnet50", "wave_resnet50")])
def test_a_converted_resnet_is_the_wavecnet(name, wave):
    plain = lively(build(name))
    model = convert_wavelet(copy.deepcopy(plain), "db2")
    expected = build(wave, wavelet="db2")
    expected.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images(64)), expected(images(64)), rtol=0, atol=0)
    assert not torch.allclose(model(images(64)), plain(images(64)))
    weights = list(plain.parameters())
    assert all(one is other for one, other in zip(convert_wavelet(plain).parameters(), weights, strict=True))


@pytest.mark.parametrize(
    ("name", "shortcut"),
    [
        ("resnext50_32x4d", True),
        ("seresnet50", False),
        ("resnet50d", True),
        ("resnet26d", False),
        ("wide_resnet50_2", False),
        ("resnetblur18", True),
    ],
)
def test_other_resnets_can_be_converted(name, shortcut):
    with torch.device("meta"):
        plain = timm.create_model(name)
        converted = convert_wavelet(timm.create_model(name), shortcut=shortcut)
        x = torch.empty(1, 3, 80, 80)
    low_passes = [each for each in converted.modules() if isinstance(each, LowPass)]
    assert len(low_passes) == 4 + (3 if shortcut else 0)
    assert not any(isinstance(each, timm.layers.BlurPool2d) for each in converted.modules())
    assert converted.forward_features(x).shape == plain.forward_features(x).shape
    assert sum(each.numel() for each in converted.parameters()) == sum(each.numel() for each in plain.parameters())


def test_conversion_keeps_type_mode_and_hooks_and_may_be_repeated():
    inner = build("resnet18").double()
    seen = []
    inner.maxpool.register_forward_hook(lambda _module, _arguments, output: seen.append(output.shape))
    inner.layer2.requires_grad_(False)
    inner.bn1.train()
    model = convert_wavelet(NormalizedModel(inner, mean=(0.5,) * 3, std=(0.5,) * 3), "db3")
    assert isinstance(model, NormalizedModel)
    assert model(images(64).double()).dtype == torch.float64
    assert seen == [(2, 64, 16, 16)]
    assert inner.maxpool.taps.dtype == torch.float64
    assert not inner.layer2[0].conv2[1].weight.requires_grad
    assert inner.bn1.training
    assert not inner.layer2[0].conv2.training
    assert [each.name for each in model.robust_conversions] == ["wavelet"]
    assert model.robust_conversions[0].options == {"wavelet": "db3", "shortcut": False}
    keys = list(model.state_dict())
    assert list(convert_wavelet(model, "db3").state_dict()) == keys
    assert len(model.robust_conversions) == 1


def test_a_network_in_two_places_is_converted_once():
    inner = build("resnet18")
    convert_wavelet(nn.ModuleList([inner, inner]))
    torch.testing.assert_close(inner(images(64)), convert_wavelet(build("resnet18"))(images(64)))


def test_places_can_be_left_out():
    model = convert_wavelet(build("resnet18"), exclude=r"maxpool|layer4")
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert model.layer4[0].conv1.stride == (2, 2)
    assert [name for name, each in model.named_modules() if isinstance(each, LowPass)] == [
        "layer2.0.conv2.0",
        "layer3.0.conv2.0",
    ]
    assert model(images(64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", "no stem pool or strided block of a timm ResNet"),
        ("resnetrs50", "stem pool of this network has weights"),
        ("res2net50_26w_4s", "BasicBlock and Bottleneck.*Bottle2neck"),
    ],
)
def test_other_networks_are_refused_and_left_alone(name, message):
    with torch.device("meta"):
        model = timm.create_model(name)
    before = repr(model)
    with pytest.raises(ValueError, match=message):
        convert_wavelet(model)
    assert repr(model) == before


def test_unknown_wavelets_are_refused_before_anything_is_changed():
    model = build("resnet18")
    with pytest.raises(ValueError, match="'db1000'"):
        convert_wavelet(model, "db1000")
    assert isinstance(model.maxpool, nn.MaxPool2d)


def test_needs_no_gpu_and_never_asks_for_one(monkeypatch):
    """The published layers call .cuda() whenever there is a device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = timm.create_model("wave_resnet18", num_classes=7)
    loss = model(images(32)).sum()
    loss.backward()  # and fail in backward
    assert loss.device == torch.device("cpu")


def test_names_are_registered_with_timm():
    assert set(SIZES) <= set(timm.list_models("wave_*", module=wavecnet.__name__.rpartition(".")[2]))
