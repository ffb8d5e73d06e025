"""From a model's logits to its answer among a benchmark's classes."""

import pytest
import torch
from robust_bench._checks import ModelError
from robust_bench.answer import EntryLevel, Mapped, Subset, answering
from robust_bench.metrics import ENTRY_LEVEL_CLASSES, decide
from torch import nn


@pytest.fixture
def logits():
    return torch.randn(200, 1000, generator=torch.Generator().manual_seed(0)) * 3


def test_a_subset_is_what_remains_of_the_softmax(logits):
    indices = (7, 3, 999)
    scores = Subset(indices=indices)(logits)
    chances = logits.double().softmax(dim=1)[:, list(indices)]
    torch.testing.assert_close(
        scores.double().softmax(dim=1), chances / chances.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-7
    )


def test_a_prediction_outside_of_the_mapping_is_wrong(logits):
    groups = ((1, 5), (7,), (2, 3, 4))
    scores = Mapped(indices=groups)(logits)
    assert scores.shape == (200, 4)
    for guess, found in zip(logits.argmax(dim=1).tolist(), scores.argmax(dim=1).tolist(), strict=True):
        expected = next((number for number, group in enumerate(groups) if guess in group), 3)
        assert found == expected
    assert Mapped(indices=((0,), (1,)), logits=2)(logits[:, :2]).shape == (200, 2)  # nothing is outside


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_entry_level_decisions_are_those_of_the_metric(logits, aggregation):
    scores = EntryLevel(aggregation=aggregation)(logits)
    names = list(ENTRY_LEVEL_CLASSES)
    assert [names[index] for index in scores.argmax(dim=1).tolist()] == decide(logits, aggregation)


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("level", [0.0, -3.7, 1e4])
def test_among_equals_the_first_entry_level_class_wins(aggregation, level):
    scores = EntryLevel(aggregation=aggregation)(torch.full((1, 1000), level))
    assert scores.argmax(dim=1).tolist() == [0]


def test_entry_level_scores_stay_finite():
    logits = torch.zeros(1, 1000)
    logits[0, 404] = 3000.0
    assert bool(torch.isfinite(EntryLevel()(logits)).all())


def test_entry_level_means_are_mean_probabilities(logits):
    chances = logits.double().softmax(dim=1)
    means = torch.stack([chances[:, list(group)].mean(dim=1) for group in ENTRY_LEVEL_CLASSES.values()], dim=1)
    torch.testing.assert_close(EntryLevel()(logits).exp(), means)


def test_gradients_go_through(logits):
    for answer in (Subset(indices=(0, 1)), Mapped(indices=((0, 1), (2,))), EntryLevel()):
        given = logits[:4].clone().requires_grad_()
        answer(given).sum().backward()
        assert bool(torch.isfinite(given.grad).all())
        assert bool(given.grad.abs().sum() > 0)


def test_another_number_of_logits_is_an_error_for_modules_and_functions():
    answer = Subset(indices=(0, 1))
    for model in (nn.Identity(), lambda images: images):
        with pytest.raises(ModelError, match=r"1000 logits, one for each class of ImageNet.*got 10"):
            answering(model, answer)(torch.zeros(2, 10))


def test_a_modules_mode_is_kept():
    assert not answering(nn.Dropout().eval(), EntryLevel()).training
    assert answering(nn.Dropout().train(), EntryLevel()).training
