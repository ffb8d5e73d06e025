"""Pyramid adversarial training against its formula, with the masks of dropout written out."""

import pytest
import torch
from robust_attacks import ImageRandom, Pyramid
from robust_attacks.pyramid import same_noise
from robust_train import recipes, train
from robust_train.objectives import PyramidAT
from robust_train.recipes import RecipeError
from torch import nn
from torch.nn import functional

CELLS, MULTIPLIERS, EPS, STEP = (4, 1), (10.0, 2.0), 0.01, 0.004
ATTACK = Pyramid(cells=CELLS, multipliers=MULTIPLIERS, eps=EPS, step_size=STEP, steps=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Dropout(0.5), nn.Linear(40, 4)
    return nn.Sequential(*layers).double().train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


def log_p_of(model, x, mask):
    hidden = (x.flatten(1) @ model[1].weight.T + model[1].bias).tanh() * mask
    logits = hidden @ model[4].weight.T + model[4].bias
    return logits - logits.exp().sum(1, keepdim=True).log()


def perturbed_by_formula(model, images, targets, mask):
    """clip(x + 10 up(coarse) + 2 fine), both down the loss of the target, within eps."""
    coarse, fine = torch.zeros(6, 1, 2, 2, dtype=torch.float64), torch.zeros_like(images)

    def summed():
        return images + 10 * functional.interpolate(coarse, scale_factor=4, mode="nearest") + 2 * fine

    for _ in range(3):
        coarse, fine = coarse.detach().requires_grad_(), fine.detach().requires_grad_()
        loss = -log_p_of(model, summed().clamp(0, 1), mask)[torch.arange(6), targets].sum()
        gradients = torch.autograd.grad(loss, (coarse, fine))
        coarse, fine = (
            (grid.detach() - STEP * gradient.sign()).clamp(-EPS, EPS)
            for grid, gradient in zip((coarse, fine), gradients, strict=True)
        )
    return summed().clamp(0, 1)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_equals_the_formula(soft, model, batch):
    images, labels = batch
    random = ImageRandom(5, torch.arange(6))
    with same_noise(5):
        mask = functional.dropout(torch.ones(6, 40, dtype=torch.float64), 0.5)
    targets = random.integers("pyramid/target", 4, 1)[:, 0]
    expected_images = perturbed_by_formula(model, images, targets, mask)
    wanted = torch.eye(4, dtype=torch.float64)[labels]
    if soft:
        labels = wanted = 0.7 * wanted + 0.3 * wanted.roll(1, 0)
    objective = PyramidAT(attack=ATTACK)
    state = torch.get_rng_state()
    perturbed = objective.perturb(model, images, labels, random)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=1e-12)
    assert (perturbed - images).abs().max() > 0.05
    assert all(parameter.grad is None for parameter in model.parameters())

    clean, attacked = log_p_of(model, images, mask), log_p_of(model, expected_images, mask)
    expected = -(wanted * (clean + attacked)).sum(1)
    gradients = torch.autograd.grad(expected.mean(), list(model.parameters()))
    for _ in range(2):  # a second time, as sharpness-aware optimizers do
        model.zero_grad()
        losses, metrics = objective.losses(model, images, perturbed, labels)
        torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)
        losses.mean().backward()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-13)
    assert metrics["accuracy"] == (clean.argmax(1) == wanted.argmax(1)).sum()
    assert metrics["adversarial_accuracy"] == (attacked.argmax(1) == wanted.argmax(1)).sum()
    assert torch.equal(torch.get_rng_state(), state)


def test_another_update_has_other_masks(model, batch):
    images, labels = batch
    objective, losses = PyramidAT(attack=ATTACK), []
    for seed in (5, 6):
        objective.perturb(model, images, labels, ImageRandom(seed, torch.arange(6)))
        losses.append(objective.losses(model, images, images, labels)[0])
    assert not torch.equal(*losses)


def test_statistics_of_batch_norm_move_in_the_two_passes_alone(batch):
    images, labels = batch
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4)).double()
    objective = PyramidAT(attack=ATTACK)
    perturbed = objective.perturb(model, images, labels, ImageRandom(0, torch.arange(6)))
    assert model[1].num_batches_tracked == 0
    objective.losses(model, images, perturbed, labels)
    assert model[1].num_batches_tracked == 2


def test_the_recipe_trains_the_same_way_twice(tmp_path):
    recipe = recipes.load("digits-pyramid-at")
    assert (recipe.model.drop_rate > 0, recipe.objective.batch_norm) == (True, "train")
    tiny = recipe.replace(epochs=1, batch_size=640, **{"evaluation.steps": 1})
    one, other = (train(tiny, tmp_path / name, device="cpu") for name in ("one", "other"))
    record = one.history[-1]
    assert (record["update"], set(record) >= {"loss", "accuracy", "adversarial_accuracy"}) == (2, True)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_settings_out_of_range():
    recipe = recipes.load("digits-pyramid-at")
    with pytest.raises(RecipeError, match=r"objective.Pyramid: cells and multipliers must be as many"):
        recipe.replace(**{"objective.cells": [4, 2]})
    with pytest.raises(RecipeError, match=r"objective.Pyramid: steps must be"):
        recipe.replace(**{"objective.steps": 0})
