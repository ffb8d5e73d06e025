"""High-frequency adversarial training against the authors' loop, written with plain operations in float64."""

import pytest
import torch
from robust_train import recipes, train
from robust_train.objectives import HighFrequencyHAT, Standard
from robust_train.perturb import Strength
from torch import nn

EPS, STEP = 0.02, 0.01


@pytest.fixture
def model(classifier):
    return classifier(nn.Tanh, stretch=8)


def authors_loop(model, images, targets, eps, step, kl_weight, box, iterations=3, ce_weight=3.0):
    """Every backward pass gives gradients to the weights, which add up, and moves delta; the images of all passes."""
    reference = model(images).detach()
    p = reference.exp() / reference.exp().sum(1, keepdim=True)
    delta, seen, total = torch.zeros_like(images), [], 0.0
    model.zero_grad()
    for index in range(iterations):
        x = images + delta
        x = (x.clamp(0, 1) if box else x).detach().requires_grad_()
        q = model(x).exp() / model(x).exp().sum(1, keepdim=True)
        entropy = -(targets * q.log()).sum(1).mean()
        divergence = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean() / 2
        loss = entropy + kl_weight * divergence
        if index > 0:
            loss = (ce_weight * entropy + kl_weight * divergence) / (iterations - 1)
        loss.backward()
        total += loss.item()
        seen.append(x.detach())
        delta = (x.detach() - images + step * x.grad.sign()).clamp(-eps, eps)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return torch.stack(seen, dim=1), total, gradients


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("box", "iterations"), [(True, 3), (False, 3), (True, 5)])
def test_equals_the_authors_loop(box, iterations, soft, model, batch):
    """Including the gradients of all its backward passes; a weight of 1 lets the divergence be seen."""
    images, labels = batch
    onehot = nn.functional.one_hot(labels, 4).double()
    targets = 0.7 * onehot + 0.3 * onehot.flip(0) if soft else onehot
    given = targets if soft else labels
    views, total, gradients = authors_loop(model, images, targets, EPS, STEP, 1.0, box, iterations)
    objective = HighFrequencyHAT(eps=EPS, step=STEP, kl_weight=1.0, box=box, iterations=iterations)
    perturbed = objective.perturb(model, images, given)
    torch.testing.assert_close(perturbed, views, rtol=0, atol=1e-12)
    assert (perturbed - images[:, None]).abs().amax() <= EPS + 1e-15
    assert bool((perturbed < 0).any() or (perturbed > 1).any()) is not box

    loss, metrics = objective.loss(model, images, perturbed, given)
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-12)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)
    assert metrics["accuracy"] == (model(images).argmax(1) == labels).sum()
    assert metrics["adversarial_accuracy"] == (model(perturbed[:, -1]).argmax(1) == labels).sum()


def test_the_authors_normalised_noise_is_half_as_long_in_pixels(model, batch):
    """Their delta of 2/255 is added to (x - 0.5) / 0.5."""
    images, labels = batch
    onehot = nn.functional.one_hot(labels, 4).double()

    class Bare(nn.Module):
        def forward(self, normalised):
            return model(0.5 * normalised + 0.5)

    views, *_ = authors_loop(Bare(), (images - 0.5) / 0.5, onehot, 2 / 255, 1 / 255, 0.01, box=False)
    objective = HighFrequencyHAT(eps=1 / 255, step=0.5 / 255, box=False)
    torch.testing.assert_close(objective.perturb(model, images, labels), 0.5 * views + 0.5, rtol=0, atol=1e-12)


def test_after_the_adversarial_phase_it_is_standard_training(model, batch):
    images, labels = batch
    objective = HighFrequencyHAT(adversarial_updates=2, label_smoothing=0.1)
    shapes = []
    for _ in range(4):
        perturbed = objective.perturb(model, images, labels)
        shapes.append(perturbed.ndim)
        objective.learn([(images, perturbed, labels)])
    assert shapes == [5, 5, 4, 4]
    assert perturbed is images
    other = Standard(label_smoothing=0.1).losses(model, images, images, labels)
    assert torch.equal(objective.losses(model, images, perturbed, labels)[0], other[0])


def test_a_warm_up_shortens_delta(model, batch):
    images, labels = batch
    views = HighFrequencyHAT(eps=EPS, step=STEP, box=False).perturb(model, images, labels, strength=Strength(0.5, 1.0))
    assert (views - images[:, None]).abs().amax((0, 2, 3, 4)).tolist() == pytest.approx([0, EPS / 2, EPS / 2])


def test_the_second_half_can_be_repeated_and_its_images_are_made_without_a_trace(model, batch):
    images, labels = batch
    model.train()
    before = model[1].running_mean.clone()
    objective = HighFrequencyHAT(eps=EPS, step=STEP)
    perturbed = objective.perturb(model, images, labels)
    assert torch.equal(model[1].running_mean, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    first, second = (objective.loss(model, images, perturbed, labels)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_recipe_trains_and_resumes_in_its_second_phase(tmp_path, broken_off):
    recipe = recipes.load("digits-hf-hat")
    assert (recipe.objective.iterations, recipe.objective.eps, recipe.objective.step) == (3, 2 / 255, 1 / 255)
    assert (recipe.objective.ce_weight, recipe.objective.kl_weight) == (3.0, 0.01)
    per_epoch = -(-1212 // recipe.batch_size)
    assert recipe.objective.adversarial_updates == 2 * recipe.epochs * per_epoch // 3  # 200 of 300 epochs

    short = {"epochs": 3, "batch_size": 700, "evaluation.steps": 1, "checkpoint_every": 1}
    recipe = recipe.replace(**{**short, "objective.adversarial_updates": 3})
    whole = train(recipe, tmp_path / "whole", device="cpu")
    assert ["divergence" in record for record in whole.history] == [True, True, False]

    report = broken_off(recipe, tmp_path / "broken", begun=4)
    for one, other in zip(report.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("eps", 2, r"objective\.eps is in units of \[0, 1\] pixels"),
        ("step", 0, r"objective\.step must be positive, got 0"),
        ("iterations", 1, r"objective\.iterations must be at least 2, got 1"),
        ("kl_weight", -1, r"objective\.kl_weight must not be negative, got -1"),
        ("adversarial_updates", -1, r"objective\.adversarial_updates must not be negative, got -1"),
    ],
)
def test_settings_that_make_no_sense(setting, value, message):
    with pytest.raises(ValueError, match=message):
        recipes.load("digits-hf-hat").replace(**{f"objective.{setting}": value})
