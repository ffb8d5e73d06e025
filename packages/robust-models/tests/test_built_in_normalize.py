"""The mean/std step of networks that have it inside."""

import pytest
import torch
from robust_models import Normalize
from robust_models.built_in_normalize import CIFAR10_MEAN, CIFAR10_STD, BuiltInNormalize


def test_is_the_plain_layer_without_entries_in_the_state_dict():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    layer = BuiltInNormalize(3)
    torch.testing.assert_close(layer(images), Normalize(CIFAR10_MEAN, CIFAR10_STD)(images), rtol=0, atol=0)
    assert layer.state_dict() == {}
    assert layer.double().mean.dtype == torch.float64


def test_other_channels_get_the_average_unless_told():
    assert BuiltInNormalize(1).mean.item() == pytest.approx(sum(CIFAR10_MEAN) / 3)
    assert BuiltInNormalize(5).std.flatten().tolist() == pytest.approx([sum(CIFAR10_STD) / 3] * 5)
    assert BuiltInNormalize(2, [0.1, 0.2], [0.3, 0.4]).std.flatten().tolist() == pytest.approx([0.3, 0.4])
    with pytest.raises(ValueError, match="each of 4 channels"):
        BuiltInNormalize(4, CIFAR10_MEAN, CIFAR10_STD)
    with pytest.raises(ValueError, match="positive"):
        BuiltInNormalize(1, [0.5], [0.0])


def test_comes_back_from_the_meta_device():
    with torch.device("meta"):
        layer = BuiltInNormalize(3)
    layer.to_empty(device="cpu")
    layer.init_non_persistent_buffers()
    assert layer.mean.flatten().tolist() == pytest.approx(list(CIFAR10_MEAN))
    assert layer.std.flatten().tolist() == pytest.approx(list(CIFAR10_STD))
