"""DeepMind's wide ResNets against stored numbers, their published sizes, and a second implementation."""

import pytest
import timm
import torch
from robust_models import NormalizedModel, create_model, get_normalization, wide_resnet_dm
from robust_models.wide_resnet_dm import WideBlockDM, WideResNetDM
from torch.nn import functional

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.shared_data
def test_answers_as_stored(golden):
    golden("wrn_28_10_dm_silu").check(timm.create_model("wrn_28_10_dm_silu", **PLAIN))


@pytest.mark.parametrize("suffix", ["", "_silu"])
@pytest.mark.parametrize(
    ("size", "parameters", "tensors"),
    [
        ("28_10", 36_479_194, 155),
        ("34_10", 46_160_474, 191),
        ("70_16", 266_796_506, 407),
        ("82_8", 79_125_466, 479),
        ("94_16", 365_915_610, 551),
        ("106_16", 415_475_162, 623),
    ],
)
def test_has_the_published_size(size, parameters, tensors, suffix):
    with torch.device("meta"):
        network = timm.create_model(f"wrn_{size}_dm{suffix}")
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    assert isinstance(network.act, torch.nn.SiLU if suffix else torch.nn.ReLU)
    assert not any("mean" in name and "running" not in name for name in network.state_dict())


def test_the_registry_of_weights_builds_any_size():
    with torch.device("meta"):
        network = timm.create_model("wrn_dm", depth=82, width=8, act="silu")
    assert sum(each.numel() for each in network.parameters()) == 79_125_466
    assert isinstance(network.act, torch.nn.SiLU)
    assert all(isinstance(block.act, torch.nn.SiLU) for stage in network.layer for block in stage.block)


def test_follows_the_protocol(protocol):
    protocol("wrn_dm", side=16, depth=10, width=1, act="silu").check()
    protocol("wrn_dm", side=22, depth=10, width=1).gives_intermediates()


@pytest.mark.parametrize("act", ["relu", "silu"])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (6, 2)])
def test_a_block_is_the_formula(by_rule, channels, stride, act):
    block = by_rule(WideBlockDM(4, channels, stride, act=act), 3).double()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    w = block.state_dict()

    def activated(values, norm):
        mean, var, gain, bias = (
            w[f"{norm}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        values = (values - mean) / (var + 1e-5).sqrt() * gain + bias
        return values.clamp(min=0) if act == "relu" else values / (1 + (-values).exp())

    inner = activated(x, "batchnorm_0")
    border = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
    expected = functional.conv2d(functional.pad(inner, border), w["conv_0.weight"], stride=stride)
    expected = functional.conv2d(activated(expected, "batchnorm_1"), w["conv_1.weight"], padding=1)
    shortcut = functional.conv2d(inner, w["shortcut.weight"], stride=stride) if "shortcut.weight" in w else x
    torch.testing.assert_close(block(x), expected + shortcut, rtol=1e-12, atol=1e-12)


def test_images_of_odd_size_keep_their_border():
    torch.manual_seed(0)
    network = WideResNetDM(depth=10, width=1).eval()
    assert network.forward_features(torch.rand(1, 3, 31, 29)).shape == (1, 64, 8, 8)


def test_normalises_inside_and_is_not_normalised_twice():
    model = create_model("wrn_dm", model_args={"depth": 10, "width": 1})
    assert isinstance(model, WideResNetDM)
    mean, std = get_normalization(model)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-6)
    assert std == pytest.approx((0.2471, 0.2435, 0.2616), abs=1e-6)
    assert model.pretrained_cfg["mean"] == (0.0, 0.0, 0.0)
    assert model.pretrained_cfg["std"] == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="already normalises"):
        NormalizedModel(model, mean=mean, std=std)


def test_is_the_plain_network_on_normalised_images():
    model, plain = WideResNetDM(10, 1).eval(), WideResNetDM(10, 1, **PLAIN).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in get_normalization(model))
    torch.testing.assert_close(model(images), plain((images - mean) / std), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(model(images), plain(images))


def test_refuses_what_it_cannot_build():
    with pytest.raises(ValueError, match=r'"relu" or "silu", got \'gelu\''):
        WideResNetDM(10, 1, act="gelu")
    with pytest.raises(ValueError, match="depth=12"):
        WideResNetDM(12, 1)
    with pytest.raises(ValueError, match="one value for each of 3 channels"):
        WideResNetDM(10, 1, mean=[0.5], std=[0.5])
    assert wide_resnet_dm.activation("relu")(torch.tensor(-1.0)) == 0
