"""What the residual networks for CIFAR share, beyond the protocol of timm."""

import pytest
import timm
import torch
from robust_models import create_model
from robust_models import preact_resnet as preact_resnet  # registers its models
from robust_models.wide_resnet import WideResNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return WideResNet(depth=16, width=1).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_refuses_what_it_does_not_have(network, images):
    with pytest.raises(ValueError, match="averages its map, got global_pool='max'"):
        network.reset_classifier(3, "max")
    with pytest.raises(ValueError, match=r"NCHW.*'NLC'"):
        network.forward_intermediates(images, output_fmt="NLC")
    with pytest.raises(ValueError, match="norm=True"):
        network.forward_intermediates(images, norm=True)


def test_a_new_classifier_has_the_dtype_of_the_network(network):
    network.double().reset_classifier(3, "avg")
    assert network.fc.weight.dtype == torch.float64
    assert network.no_weight_decay() == set()


def test_stochastic_depth_grows_with_depth():
    blocks = [
        block
        for stage in ("block1", "block2", "block3")
        for block in WideResNet(depth=22, width=1, drop_path_rate=0.4).get_submodule(stage).layer
    ]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0.05 * index for index in range(9)])


def test_hooks_on_blocks_see_maps_also_while_saving_memory(network, images):
    shapes = []
    network.block2.layer[0].register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    network(images)
    network.set_grad_checkpointing()
    network(images)
    assert shapes == [(2, 32, 16, 16)] * 2


def test_saving_memory_keeps_fewer_maps(network, images):
    kept = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        elements = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, elements=elements: elements.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            network(images)
        kept.append(sum(elements))
    assert kept[1] < kept[0] / 3


def test_groups_of_layers_follow_the_blocks(network):
    groups = timm.models.group_parameters(network, network.group_matcher())
    assert len(groups) == 1 + 6 + 1
    assert groups[0] == ["conv1.weight"]
    assert all(name.startswith("block1.layer.1.") for name in groups[2])
    assert len(timm.models.group_parameters(network, network.group_matcher(coarse=True))) == 1 + 3 + 1


def test_create_model_takes_images_as_they_are(images):
    model = create_model("preact_resnet18").eval()
    torch.testing.assert_close(model(images), model.unwrap()(images))
