"""TRADES against its formula, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import L2, PGD, ImageRandom, Linf
from robust_train import recipes, train
from robust_train.objectives import TRADES, Standard
from robust_train.perturb import Strength, build_threat
from torch import nn

EPS, STEP, STEPS = 0.1, 0.03, 4


@pytest.fixture
def model(classifier):
    return classifier(stretch=4)


def objective(norm="Linf", **settings):
    threat = build_threat(norm, EPS, "near")
    return TRADES(attack=PGD(threat=threat, steps=STEPS, step_size=STEP), **settings)


def kl(p, q):
    return (p * (p / q).log()).sum(1)


def probabilities(model, x):
    exponentials = model(x).exp()
    return exponentials / exponentials.sum(1, keepdim=True)


def attacked_by_formula(norm, model, images, random):
    """x + 0.001 N(0, 1), then steps that increase KL(p(x) || p(x')), projected."""

    def project(x):
        if norm == "Linf":
            return torch.minimum(torch.maximum(x, images - EPS), images + EPS).clamp(0, 1)
        delta = x - images  # far from the edges of the box, so the ball alone counts
        lengths = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return images + delta * (EPS / lengths).clamp(max=1)

    p = probabilities(model, images).detach()
    x = project(images + 1e-3 * random.normal("pgd/start", images.shape[1:]).double())
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(kl(p, probabilities(model, x)).sum(), x)
        lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = project(x.detach() + STEP * (gradient.sign() if norm == "Linf" else gradient / lengths))
    return x


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_equals_the_formula(norm, smoothing, soft, model, batch):
    images, labels = batch
    if norm == "L2":
        images = 0.3 + 0.4 * images
    onehot = nn.functional.one_hot(labels, 4).double()
    given = 0.7 * onehot + 0.3 * onehot.flip(0) if soft else labels
    random = ImageRandom(5, torch.arange(6))
    trades = objective(norm, beta=3.0, label_smoothing=smoothing)

    expected_images = attacked_by_formula(norm, model, images, random)
    perturbed = trades.perturb(model, images, given, random)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=1e-12)
    assert (perturbed - images).abs().max() > 0.3 * EPS

    targets = given if soft else onehot
    targets = (1 - smoothing) * targets + smoothing / 4
    p, q = probabilities(model, images), probabilities(model, expected_images)
    expected = (-(targets * p.log()).sum(1) + 3 * kl(p, q)).mean()
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, metrics = trades(model, images, given, random)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(metrics["divergence"], kl(p, q).detach().sum(), rtol=1e-10, atol=0)
    assert metrics["accuracy"] == (p.argmax(1) == labels).sum()
    assert metrics["adversarial_accuracy"] == (q.argmax(1) == labels).sum()


def test_without_the_divergence_it_is_standard_training(model, batch):
    images, labels = batch
    perturbed = torch.rand_like(images)
    losses, _ = objective(beta=0.0).losses(model, images, perturbed, labels)
    torch.testing.assert_close(losses, Standard().losses(model, images, images, labels)[0], rtol=1e-14, atol=0)


def test_the_second_half_can_be_repeated_on_the_same_images(model, batch):
    """As sharpness-aware optimizers need it."""
    images, labels = batch
    perturbed = objective().perturb(model, images, labels, ImageRandom(0))
    assert torch.equal(*(objective().loss(model, images, perturbed, labels)[0] for _ in range(2)))


def test_passes_of_a_step(model, batch):
    """p(x) once in eval mode for the attack, one per step, and two in training mode for the loss."""
    images, labels = batch
    model.train()
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    objective()(model, images, labels, ImageRandom(0))
    assert modes == [False] * (1 + STEPS) + [True] * 2


def test_the_authors_batch_norm_moves_three_times_and_the_loss_is_the_same(model, batch):
    images, labels = batch
    model.train()
    results = []
    before = int(model[1].num_batches_tracked)
    perturbed = objective().perturb(model, images, labels, ImageRandom(0))
    assert model[1].num_batches_tracked == before
    for reference in (False, True):
        before = int(model[1].num_batches_tracked)
        loss, _ = objective(reference_batch_norm=reference).loss(model, images, perturbed, labels)
        model.zero_grad()
        loss.backward()
        assert model[1].num_batches_tracked == before + (3 if reference else 2)
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_in_mixed_precision_the_clean_prediction_and_the_first_step_are_exact(model, batch):
    images, labels = (batch[0].float(), batch[1])
    seen = []
    model.float()[4].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    low, full = objective(precision=torch.bfloat16), objective()
    low.perturb(model, images, labels, ImageRandom(0))
    assert seen == [torch.float32, torch.float32] + [torch.bfloat16] * (STEPS - 1)
    one_step = {"attack": PGD(threat=build_threat("Linf", EPS, "near"), steps=1, step_size=STEP)}
    made = [TRADES(**one_step, precision=low_or_full.precision) for low_or_full in (low, full)]
    assert torch.equal(*(one.perturb(model, images, labels, ImageRandom(0)) for one in made))


def test_no_strength_means_clean_images(model, batch):
    images, labels = batch
    assert objective().perturb(model, images, labels, strength=Strength(radius=0)) is images


def test_an_attack_that_leaves_images_out_is_refused(model, batch):
    trades = TRADES(attack=PGD(threat=L2(eps=2.0), steps=3, restarts=4))
    with pytest.raises(ValueError, match="TRADES compares each with its clean prediction"):
        trades.perturb(model, *batch, ImageRandom(0))


def test_the_recipe_trains(tmp_path):
    recipe = recipes.load("digits-trades")
    assert (recipe.objective.beta, recipe.attack.steps, recipe.attack.start) == (6.0, 10, "near")
    tiny = {"epochs": 1, "batch_size": 700, "attack.steps": 2, "evaluation.steps": 1}
    report = train(recipe.replace(**tiny), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
    assert report.history[-1]["divergence"] > 0


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("beta", -1, r"objective\.beta must not be negative, got -1"),
        ("label_smoothing", 1, r"objective\.label_smoothing must lie in \[0, 1\), got 1"),
    ],
)
def test_settings_that_make_no_sense(setting, value, message):
    with pytest.raises(ValueError, match=message):
        recipes.load("digits-trades").replace(**{f"objective.{setting}": value})


def test_other_starts_are_those_of_the_attack(model, batch):
    """Wang et al., ICML 2023, start from a uniform point of the ball."""
    images, labels = batch
    random = ImageRandom(5, torch.arange(6))
    trades = TRADES(attack=PGD(threat=Linf(eps=EPS), steps=1, step_size=1e-9))
    start = (images + EPS * (2 * random.uniform("pgd/start", images.shape[1:]).double() - 1)).clamp(0, 1)
    torch.testing.assert_close(trades.perturb(model, images, labels, random), start, rtol=0, atol=2e-9)
