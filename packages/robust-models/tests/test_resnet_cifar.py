"""ResNets for CIFAR: their published sizes, timm's ResNet as the second implementation."""

import pytest
import timm
import torch
from robust_models.resnet_cifar import Bottleneck, CifarResNet


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"), [("resnet18_cifar", 11_173_962, 122), ("resnet50_cifar", 23_520_842, 320)]
)
def test_has_the_published_size(name, parameters, tensors):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize(("name", "twin"), [("resnet18_cifar", "resnet18"), ("resnet50_cifar", "resnet50")])
def test_is_the_resnet_of_timm_with_another_stem(by_rule, name, twin):
    """Same blocks under other names, in eval and in training."""
    network = by_rule(timm.create_model(name), 5).double()
    other = timm.create_model(twin, num_classes=10)
    other.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    other.maxpool = torch.nn.Identity()
    renamed = {
        key.replace("shortcut.", "downsample.").replace("linear.", "fc."): value
        for key, value in network.state_dict().items()
    }
    other.double().load_state_dict(renamed)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    for mode in (False, True):
        expected, found = other.train(mode)(images), network.train(mode)(images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.bn1.running_var, other.bn1.running_var)


def test_follows_the_protocol(protocol):
    protocol("resnet18_cifar", side=16, block=Bottleneck, depths=(1, 1, 1, 1)).check()


def test_other_depths_and_image_sizes():
    torch.manual_seed(0)
    network = CifarResNet(Bottleneck, (1, 1, 1, 2), num_classes=0).eval()
    assert network(torch.rand(1, 3, 40, 24)).shape == (1, 2048)
    with pytest.raises(ValueError, match=r"four stages, got \(1, 1\)"):
        CifarResNet(depths=(1, 1))
