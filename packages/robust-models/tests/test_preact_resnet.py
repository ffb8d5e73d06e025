"""PreAct-ResNets against stored numbers, their published sizes, and a second implementation."""

import pytest
import timm
import torch
from robust_models.preact_resnet import PreActBlock, PreActResNet
from torch.nn import functional


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet18_bn"])
def test_answers_as_stored(golden, name):
    golden(name).check(timm.create_model(name))


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"), [("preact_resnet18", 11_171_146, 102), ("preact_resnet18_bn", 11_172_170, 107)]
)
def test_has_the_published_size(name, parameters, tensors):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


def test_follows_the_protocol(protocol):
    protocol("preact_resnet18_bn", side=16, depths=(1, 1, 1, 1)).check()


@pytest.mark.parametrize("of_activation", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_block_is_the_formula(by_rule, channels, stride, of_activation):
    block = by_rule(PreActBlock(4, channels, stride, shortcut_of_activation=of_activation), 3).double()
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
        assert "shortcut.0.weight" not in w
        expected = expected + x
    else:
        expected = expected + functional.conv2d(inner if of_activation else x, w["shortcut.0.weight"], stride=stride)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_the_last_batch_norm_is_followed_by_relu(by_rule):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, normed = (by_rule(PreActResNet((1, 1, 1, 1), bn_before_fc=bn), 4) for bn in (False, True))
    maps = plain.forward_features(images)
    torch.testing.assert_close(normed.forward_features(images), normed.bn(maps).clamp(min=0))
    assert (maps < 0).any()


def test_other_depths_and_image_sizes():
    torch.manual_seed(0)
    network = PreActResNet(depths=(1, 2, 1, 3), num_classes=5).eval()
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)] == [1, 2, 1, 3]
    assert network(torch.rand(1, 3, 40, 24)).shape == (1, 5)
    for depths in ((2, 2, 2), (2, 2, 2, 0)):
        with pytest.raises(ValueError, match="four stages, got"):
            PreActResNet(depths=depths)
