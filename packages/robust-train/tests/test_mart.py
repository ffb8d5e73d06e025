"""MART against its formula, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom
from robust_train import recipes, train
from robust_train.objectives import MART, Adversarial
from robust_train.perturb import build_threat
from torch import nn


@pytest.fixture
def model(classifier):
    return classifier(stretch=4)


ATTACK = PGD(threat=build_threat("Linf", 0.1, "near"), steps=4, step_size=0.03)


def loss_by_formula(model, images, perturbed, targets, weight):
    """One image after the other; `targets` are probabilities, of which the likeliest is y."""
    total = 0
    for x, x_new, target in zip(images, perturbed, targets, strict=True):
        p, q = (model(image[None])[0].exp() / model(image[None])[0].exp().sum() for image in (x, x_new))
        y = int(target.argmax())
        rival = max(q[k] for k in range(4) if k != y)
        boosted = -(target * q.log()).sum() - (1.0001 - rival + 1e-12).log()
        divergence = sum(p[k] * (p[k].log() - (q[k] + 1e-12).log()) for k in range(4))
        total = total + boosted + weight * divergence * (1.0000001 - p[y])
    return total / len(images)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_equals_the_formula(weight, soft, model, batch):
    images, labels = batch
    targets = nn.functional.one_hot(labels, 4).double()
    targets = 0.7 * targets + 0.3 * targets.flip(0) if soft else targets
    given = targets if soft else labels
    mart = MART(attack=ATTACK, weight=weight)
    perturbed = mart.perturb(model, images, given, ImageRandom(5))

    expected = loss_by_formula(model, images, perturbed, targets, weight)
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, metrics = mart.loss(model, images, perturbed, given)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    assert metrics["accuracy"] == (model(images).argmax(1) == labels).sum()
    assert metrics["adversarial_accuracy"] == (model(perturbed).argmax(1) == labels).sum()


def test_attacks_the_cross_entropy_from_beside_the_image(model, batch):
    images, labels = batch
    random = ImageRandom(5, torch.arange(6))
    x = images + 1e-3 * random.normal("pgd/start", images.shape[1:]).double()
    for step in range(5):
        x = torch.minimum(torch.maximum(x, images - 0.1), images + 0.1).clamp(0, 1).detach().requires_grad_()
        if step < 4:
            log_p = model(x) - model(x).exp().sum(1, keepdim=True).log()
            (gradient,) = torch.autograd.grad(-log_p[torch.arange(6), labels].sum(), x)
            x = x + 0.03 * gradient.sign()
    perturbed = MART(attack=ATTACK).perturb(model, images, labels, random)
    torch.testing.assert_close(perturbed, x.detach(), rtol=0, atol=1e-12)


def test_the_rival_is_the_best_wrong_class_wherever_it_stands():
    """A linear read-out of the pixels: the logits are the image."""
    model = nn.Flatten()
    labels = torch.tensor([2, 0])
    images = torch.tensor([[0.1, 0.9, 0.3], [0.9, 0.2, 0.4]], dtype=torch.float64).reshape(2, 1, 1, 3)
    losses, _ = MART(attack=ATTACK, weight=0.0).losses(model, images, images, labels)
    p = images.flatten(1).softmax(1)
    expected = -p[[0, 1], [2, 0]].log() - (1.0001 - p[[0, 1], [1, 2]]).log()
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)


def test_misclassified_images_weigh_more():
    """The same divergence counts in proportion to 1 - p_y(x)."""
    model = nn.Flatten()
    clean = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64).reshape(1, 1, 1, 3)
    moved = clean + torch.tensor([-0.1, 0.1, 0.0], dtype=torch.float64)
    extra = []
    for label in (0, 2):
        parts = [MART(attack=ATTACK, weight=w).losses(model, clean, moved, torch.tensor([label]))[0] for w in (0, 1)]
        extra.append(parts[1] - parts[0])
    p = clean.flatten().softmax(0)
    torch.testing.assert_close(extra[1] / extra[0], ((1 - p[2]) / (1 - p[0]))[None], rtol=1e-6, atol=0)


def test_trains_on_the_same_images_as_adversarial_training(model, batch):
    made = [kind(attack=ATTACK).perturb(model, *batch, ImageRandom(2)) for kind in (MART, Adversarial)]
    assert torch.equal(*made)


def test_sure_predictions_stay_finite():
    """Float32 probabilities of exactly 0 and 1."""
    images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).reshape(2, 1, 1, 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    nn.init.eye_(model[1].weight).data.mul_(300)
    loss, _ = MART(attack=ATTACK).loss(model, images, images.flip(0), torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert model[1].weight.grad.isfinite().all()


def test_the_recipe_trains(tmp_path):
    recipe = recipes.load("digits-mart")
    assert (recipe.objective.weight, recipe.attack.steps, recipe.attack.start) == (5.0, 10, "near")
    tiny = {"epochs": 1, "batch_size": 700, "attack.steps": 2, "evaluation.steps": 1}
    report = train(recipe.replace(**tiny), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
    assert report.history[-1]["divergence"] > 0
    with pytest.raises(ValueError, match=r"objective\.weight must not be negative, got -1"):
        recipe.replace(**{"objective.weight": -1})
