"""Wide ResNets against stored numbers, their published sizes, and a second implementation."""

import pytest
import timm
import torch
from robust_models import wide_resnet
from robust_models.wide_resnet import WideBlock, WideResNet
from torch.nn import functional


@pytest.mark.shared_data
def test_answers_as_stored(golden):
    golden("wrn_28_10").check(timm.create_model("wrn_28_10"))


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("wrn_28_10", 36_479_194, 155),
        ("wrn_34_10", 46_160_474, 191),
        ("wrn_34_15", 103_819_674, 191),
        ("wrn_34_20", 184_531_674, 191),
        ("wrn_70_16", 266_796_506, 407),
    ],
)
def test_has_the_published_size(name, parameters, tensors):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


def test_the_registry_of_weights_builds_any_size():
    with torch.device("meta"):
        network = timm.create_model("wrn", depth=34, width=15, sub_block1=True, num_classes=100)
        named = timm.create_model("wrn_34_15", num_classes=100)
    assert list(network.state_dict()) == list(named.state_dict())
    assert network.fc.weight.shape == (100, 960)


def test_follows_the_protocol(protocol):
    protocol("wrn", side=16, depth=10, width=1).check()
    protocol("wrn", side=22, depth=16, width=2).gives_intermediates()


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_a_block_is_the_formula(by_rule, channels, stride):
    block = by_rule(WideBlock(4, channels, stride), 3).double()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    w = block.state_dict()

    def activated(values, norm):
        mean, var, gain, bias = (
            w[f"{norm}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((values - mean) / (var + 1e-5).sqrt() * gain + bias).clamp(min=0)

    inner = activated(x, "bn1")
    expected = functional.conv2d(inner, w["conv1.weight"], stride=stride, padding=1)
    expected = functional.conv2d(activated(expected, "bn2"), w["conv2.weight"], padding=1)
    if (channels, stride) == (4, 1):
        assert block.convShortcut is None
        expected = expected + x
    else:
        expected = expected + functional.conv2d(inner, w["convShortcut.weight"], stride=stride)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_starts_with_the_weights_of_trades():
    torch.manual_seed(0)
    network = WideResNet(depth=10, width=4)
    for name, weight in network.named_parameters():
        if weight.ndim == 4:
            expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
            assert abs(weight.std().item() / expected - 1) < 0.1, name
    assert not network.fc.bias.any()
    assert (network.bn1.weight == 1).all()


def test_drops_between_the_convolutions_and_before_the_classifier_in_training_only():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for option in ("block_drop_rate", "drop_rate", "drop_path_rate"):
        torch.manual_seed(0)
        network = WideResNet(depth=16, width=1, **{option: 0.5})
        torch.testing.assert_close(network.eval()(images), network(images), rtol=0, atol=0)
        for norm in network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 0.0
        network.train()
        assert len({network(images).sum().item() for _ in range(4)}) > 1, option


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27}, r"6 n \+ 4.*depth=27"),
        ({"depth": 4}, "depth=4"),
        ({"width": 0}, "width=0"),
        ({"block_drop_rate": 1.0}, "block_drop_rate must lie in"),
        ({"drop_rate": -0.1}, "drop_rate must lie in"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must lie in"),
    ],
)
def test_refuses_what_it_cannot_build(options, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(**{"depth": 10, "width": 1, **options})


def test_the_unused_copy_of_the_first_stage_is_dropped():
    network = WideResNet(depth=10, width=1)
    state = network.state_dict()
    copied = {name.replace("block1.", "sub_block1."): value for name, value in state.items() if "block1." in name}
    assert len(copied) > 5
    found = wide_resnet.checkpoint_filter({**state, **copied}, network)
    assert list(found) == list(state)
    assert all(found[name] is state[name] for name in state)
