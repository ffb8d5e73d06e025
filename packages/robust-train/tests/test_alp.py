"""Adversarial logit pairing against its formula, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf
from robust_train import recipes, train
from robust_train.objectives import ALP, Adversarial, Standard
from torch import nn


@pytest.fixture
def model(classifier):
    return classifier(stretch=4)


ATTACK = PGD(threat=Linf(eps=0.1), steps=3, step_size=0.05)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("clean", "smoothing"), [(0.5, 0.0), (0.2, 0.1)])
def test_equals_the_formula(clean, smoothing, soft, model, batch):
    images, labels = batch
    onehot = nn.functional.one_hot(labels, 4).double()
    given = 0.7 * onehot + 0.3 * onehot.flip(0) if soft else labels
    alp = ALP(attack=ATTACK, weight=0.5, clean=clean, label_smoothing=smoothing)
    perturbed = alp.perturb(model, images, given, ImageRandom(5))
    assert torch.equal(perturbed, Adversarial(attack=ATTACK).perturb(model, images, given, ImageRandom(5)))

    targets = (1 - smoothing) * (given if soft else onehot) + smoothing / 4
    z, z_new = model(images), model(perturbed)
    entropies = [-(targets * (z - z.exp().sum(1, keepdim=True).log())).sum(1) for z in (z, z_new)]
    squares = ((z - z_new) ** 2).sum(1) / 4
    expected = (clean * entropies[0] + (1 - clean) * entropies[1] + 0.5 * squares).sum() / 6
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, metrics = alp.loss(model, images, perturbed, given)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(metrics["distance"], squares.detach().sum(), rtol=1e-12, atol=0)
    assert metrics["accuracy"] == (z.argmax(1) == labels).sum()
    assert metrics["adversarial_accuracy"] == (z_new.argmax(1) == labels).sum()


@pytest.mark.parametrize(("clean", "other"), [(0.0, Adversarial(attack=ATTACK)), (1.0, Standard())])
def test_without_the_pairing_it_is_adversarial_or_standard_training(clean, other, model, batch):
    images, labels = batch
    perturbed = torch.rand_like(images)
    seen = perturbed if clean == 0 else images
    losses, _ = ALP(attack=ATTACK, weight=0.0, clean=clean).losses(model, images, perturbed, labels)
    torch.testing.assert_close(losses, other.losses(model, images, seen, labels)[0], rtol=1e-14, atol=0)


def test_the_recipe_trains(tmp_path):
    recipe = recipes.load("digits-alp")
    assert (recipe.objective.weight, recipe.objective.clean) == (0.5, 0.5)
    assert "1807.10272" in recipe.source  # the warning
    tiny = {"epochs": 1, "batch_size": 700, "attack.steps": 2, "evaluation.steps": 1}
    report = train(recipe.replace(**tiny), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
    assert report.history[-1]["distance"] > 0
    with pytest.raises(ValueError, match=r"objective\.clean must be a share in \[0, 1\], got 2"):
        recipe.replace(**{"objective.clean": 2})
