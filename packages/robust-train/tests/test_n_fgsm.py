"""N-FGSM training against its formula, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import NFGSM, ImageRandom, Linf
from robust_train import recipes, train
from robust_train.objectives import Adversarial
from robust_train.perturb import build_attack

EPS = 0.1


@pytest.fixture
def model(classifier):
    return classifier()


def test_equals_the_formula(model):
    """Noise of 2 eps, one signed step of eps, cut to the box and not to the ball."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 2, 1, 1, 0])
    random = ImageRandom(5, torch.arange(6))
    objective = Adversarial(attack=NFGSM(threat=Linf(eps=EPS), noise=2.0, step_size=EPS))

    def losses_at(x):
        log_p = model(x) - model(x).exp().sum(1, keepdim=True).log()
        return -log_p[torch.arange(6), labels]

    eta = 2 * EPS * (2 * random.uniform("nfgsm/start", images.shape[1:]).double() - 1)
    start = (images + eta).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(losses_at(start).sum(), start)
    expected_images = (start.detach() + EPS * gradient.sign()).clamp(0, 1)
    perturbed = objective.perturb(model, images, labels, random)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=1e-12)
    assert (perturbed - images).abs().max() > 2 * EPS

    expected = losses_at(expected_images).mean()
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, _ = objective(model, images, labels, random)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)


def test_the_recipe_has_the_published_values_and_trains(tmp_path):
    recipe = recipes.load("digits-n-fgsm")
    assert build_attack(recipe.attack) == NFGSM(threat=Linf(eps=0.15), noise=2.0, step_size=0.15)
    tiny = {"epochs": 1, "batch_size": 700, "evaluation.steps": 1}
    report = train(recipe.replace(**tiny), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
