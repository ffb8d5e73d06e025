"""Multiply-adds."""

import torch
from robust_bench.cost import multiply_adds
from robust_models import create_model
from torch import nn


def test_multiply_adds_are_counted_as_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    assert multiply_adds(model, (3, 6, 6)) == 6 * 6 * 8 * 3 * 9 + 8 * 6 * 6 * 10


def test_a_known_network_has_the_known_number():
    """ResNet-18 at 224 has 1.8 G multiply-adds (He et al., CVPR 2016, table 1)."""
    assert round(multiply_adds(create_model("resnet18"), (3, 224, 224)) / 1e9, 1) == 1.8


def test_the_model_and_the_random_state_stay_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    multiply_adds(model, (3, 6, 6))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_does_not_fit_has_no_number():
    assert multiply_adds(nn.Linear(5, 5), (3, 6, 6)) is None
