"""Further models: lent in eval mode, themselves unchanged."""

import torch
from robust_bench.conditions.guest import Guests
from torch import nn

CPU = torch.device("cpu")


def test_a_model_in_training_mode_is_copied_once(model):
    guests = Guests()
    model.train()
    lent = guests.of({"source": model}, CPU)["source"]
    assert lent is not model
    assert not any(module.training for module in lent.modules())
    assert all(module.training for module in model.modules())
    assert guests.of({"source": model}, CPU)["source"] is lent


def test_a_model_that_is_ready_is_used_as_it_is(model):
    assert Guests().of({"source": model.eval()}, CPU)["source"] is model
    assert Guests().of({"source": torch.sin}, CPU)["source"] is torch.sin


def test_a_model_elsewhere_is_copied_there():
    model = nn.Linear(2, 2).eval()
    lent = Guests().of({"judge": model}, torch.device("meta"))["judge"]
    assert lent.weight.is_meta
    assert not model.weight.is_meta
