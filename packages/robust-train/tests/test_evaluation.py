"""Accuracy on the held-out images."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf
from robust_train.build import build_model
from robust_train.data import load_data
from robust_train.evaluation import evaluate_held_out
from torch import nn


def test_counts_what_is_right_when_clean_and_under_the_attack(tiny):
    """The same with plain operations: PGD of two steps, image ids by position."""
    torch.manual_seed(0)
    model, data = build_model(tiny).train(), load_data(tiny)
    record = evaluate_held_out(model, tiny, data)
    assert model.training
    images, labels = data.validation.tensors
    model.eval()
    attack = PGD(threat=Linf(eps=0.15), steps=2, step_size=0.25 * 0.15)
    right = model(images).argmax(1) == labels
    ids = torch.arange(len(images))[right]
    adversarial = attack(model, images[right], labels[right], random=ImageRandom(0, ids))
    robust = (model(adversarial).argmax(1) == labels[right]).sum() / len(images)
    assert record["clean"] == pytest.approx(right.float().mean().item())
    assert record["robust"] == pytest.approx(robust.item())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error_and_the_hook_goes(bad, tiny):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].bias[3] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        evaluate_held_out(model, tiny, load_data(tiny))
    assert not model._forward_hooks
