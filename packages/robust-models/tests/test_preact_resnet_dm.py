"""DeepMind's PreAct-ResNets against stored numbers, their published size, and a second implementation."""

import pytest
import timm
import torch
from robust_models import NormalizedModel, create_model, get_normalization
from robust_models.preact_resnet_dm import PreActBlockDM, PreActResNetDM
from torch.nn import functional


@pytest.mark.shared_data
def test_answers_as_stored(golden):
    network = timm.create_model("preact_resnet18_dm_silu", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    golden("preact_resnet18_dm_silu").check(network)


@pytest.mark.parametrize(
    ("name", "options", "act"),
    [
        ("preact_resnet18_dm", {}, torch.nn.ReLU),
        ("preact_resnet18_dm_silu", {}, torch.nn.SiLU),
        ("preact_resnet_dm", {"depth": 18, "act": "silu"}, torch.nn.SiLU),
    ],
)
def test_has_the_published_size(name, options, act):
    with torch.device("meta"):
        network = timm.create_model(name, **options)
    assert sum(each.numel() for each in network.parameters()) == 12_548_426
    assert len(network.state_dict()) == 107
    assert type(network.act) is type(network.layer_3[1].act) is act


def test_follows_the_protocol(protocol):
    protocol("preact_resnet_dm", side=16, depth=10, act="silu").check()


@pytest.mark.parametrize("act", ["relu", "silu"])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_block_is_the_formula(by_rule, channels, stride, act):
    block = by_rule(PreActBlockDM(4, channels, stride, act=act), 3).double()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    w = block.state_dict()

    def activated(values, norm):
        mean, var, gain, bias = (
            w[f"{norm}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        values = (values - mean) / (var + 1e-5).sqrt() * gain + bias
        return values.clamp(min=0) if act == "relu" else values / (1 + (-values).exp())

    def padded(values):
        return functional.pad(values, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))

    expected = functional.conv2d(padded(activated(x, "batchnorm_0")), w["conv_2d_1.weight"], stride=stride)
    expected = functional.conv2d(activated(expected, "batchnorm_1"), w["conv_2d_2.weight"], padding=1)
    shortcut = functional.conv2d(padded(x), w["shortcut.weight"], stride=stride) if "shortcut.weight" in w else x
    torch.testing.assert_close(block(x), expected + shortcut, rtol=1e-12, atol=1e-12)


def test_normalises_inside_and_is_not_normalised_twice():
    model = create_model("preact_resnet18_dm_silu")
    assert isinstance(model, PreActResNetDM)
    mean, std = get_normalization(model)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-6)
    with pytest.raises(ValueError, match="already normalises"):
        NormalizedModel(model, mean=mean, std=std)


def test_builds_other_depths():
    with torch.device("meta"):
        network = PreActResNetDM(depth=34)
    assert [len(stage) for stage in (network.layer_0, network.layer_1, network.layer_2, network.layer_3)] == [
        3,
        4,
        6,
        3,
    ]
    with pytest.raises(ValueError, match="one of 10, 18, 34, got 50"):
        PreActResNetDM(depth=50)
