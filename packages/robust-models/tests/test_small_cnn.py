"""The small network and what timm expects of it."""

import copy

import pytest
import timm
import torch
from robust_models import SmallCNN, create_model


@pytest.fixture
def images():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SmallCNN().eval()


@pytest.mark.parametrize(
    ("name", "parameters", "shape"), [("small_cnn_8", 62_250, (1, 8, 8)), ("small_cnn_32", 554_346, (3, 32, 32))]
)
def test_has_the_published_size_and_is_known_to_timm(name, parameters, shape):
    network = timm.create_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network.pretrained_cfg["input_size"] == shape
    assert network(torch.rand(1, *shape)).shape == (1, 10)


def test_is_conv_conv_pool_conv_pool_fc_fc(network, images):
    """Written once more with plain operations, in float64."""
    w = {name: value.double() for name, value in network.state_dict().items()}
    pool, relu = torch.nn.functional.max_pool2d, torch.relu
    x = images.double()
    x = relu(torch.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
    x = pool(relu(torch.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=1)), 2)
    x = pool(relu(torch.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1)), 2)
    x = relu(x.reshape(3, 256) @ w["hidden.weight"].T + w["hidden.bias"])
    expected = x @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(copy.deepcopy(network).double()(images.double()), expected, rtol=1e-12, atol=1e-12)


def test_splits_into_features_and_head(network, images):
    features = network.forward_features(images)
    assert features.shape == (3, 64, 2, 2)
    torch.testing.assert_close(network.forward_head(features), network(images), rtol=0, atol=0)
    hidden = network.forward_head(features, pre_logits=True)
    assert hidden.shape == (3, network.num_features)
    torch.testing.assert_close(network.get_classifier()(hidden), network(images), rtol=0, atol=0)


def test_no_classes_give_the_features_and_a_new_classifier_gives_logits(network, images):
    hidden = network.forward_head(network.forward_features(images), pre_logits=True)
    network.reset_classifier(0)
    torch.testing.assert_close(network(images), hidden, rtol=0, atol=0)
    network.reset_classifier(4)
    assert network(images).shape == (3, 4)
    with pytest.raises(ValueError, match="no global pooling"):
        network.reset_classifier(4, "avg")


def test_gives_its_intermediate_maps(network, images):
    output, maps = network.forward_intermediates(images)
    assert [tuple(one.shape[1:]) for one in maps] == [(32, 8, 8), (32, 4, 4), (64, 2, 2)]
    assert [info["num_chs"] for info in network.feature_info] == [32, 32, 64]
    assert [8 // one.shape[-1] for one in maps] == [info["reduction"] for info in network.feature_info]
    torch.testing.assert_close(output, network.forward_features(images), rtol=0, atol=0)
    last = network.forward_intermediates(images, indices=[0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(last[0], maps[0], rtol=0, atol=0)
    with pytest.raises(ValueError, match="NCHW"):
        network.forward_intermediates(images, output_fmt="NLC")


def test_says_both_sizes_for_images_of_another_size(network):
    with pytest.raises(ValueError, match=r"8 x 8 pixels, got 28 x 28"):
        network(torch.rand(1, 1, 28, 28))
    with pytest.raises(ValueError, match="multiple of 4"):
        SmallCNN(img_size=10)
    assert SmallCNN(img_size=(8, 12))(torch.rand(1, 1, 8, 12)).shape == (1, 10)


def test_drops_features_in_training_only():
    torch.manual_seed(0)
    network, images = SmallCNN(drop_rate=0.5), torch.rand(4, 1, 8, 8)
    assert (network(images) != network(images)).any()
    network.eval()
    torch.testing.assert_close(network(images), network(images), rtol=0, atol=0)


def test_refuses_gradient_checkpointing(network):
    network.set_grad_checkpointing(False)
    with pytest.raises(ValueError, match="checkpointing"):
        network.set_grad_checkpointing()


def test_sorts_its_parameters_by_depth():
    model = create_model("small_cnn_8")
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert [sorted({name.split(".")[1] for name in names}) for names in groups.values()] == [
        ["conv1"],
        ["conv2"],
        ["conv3"],
        ["head", "hidden"],
    ]
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    assert len(coarse) == 3
    assert model.no_weight_decay() == set()


def test_images_do_not_influence_each_other_in_bfloat16_and_channels_last(network, images):
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images.to(memory_format=torch.channels_last)).shape == (3, 10)
    torch.testing.assert_close(network(images[:1]), network(images)[:1])


def test_timm_gives_the_features_only():
    model = timm.create_model("small_cnn_32", features_only=True).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert [tuple(each.shape[1:]) for each in model(images)] == [(32, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert model.feature_info.channels() == [32, 32, 64]
