"""What a warm-up leaves of each attack, and where attacks begin, on a linear model whose gradient never turns."""

import pytest
import torch
from robust_attacks import FGSM, L2, NFGSM, PGD, ImageRandom, Linf
from robust_train import recipes
from robust_train.perturb import Strength, build_attack, build_threat, perturb
from torch import nn

EPS = 0.08
SHAPE = (1, 4, 4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return 0.3 + 0.4 * torch.rand(5, *SHAPE, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])


def climb(model, labels):
    """The sign in which each pixel raises the loss of its image."""
    away = model[1].weight[1 - labels] - model[1].weight[labels]
    return away.sign().view(-1, *SHAPE).detach()


STRENGTHS = [Strength(), Strength(0.5, 1.0), Strength(0.5, 0.5), Strength(1.0, 0.5), Strength(0.25, 0.75)]


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_fgsm(strength, model, batch):
    images, labels = batch
    attack = FGSM(threat=Linf(eps=EPS), step_size=0.75 * EPS)
    found = perturb(attack, model, images, labels, ImageRandom(0), strength=strength)
    length = min(0.75 * EPS * strength.step, EPS * strength.radius)
    torch.testing.assert_close(found, images + length * climb(model, labels), rtol=0, atol=1e-15)


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_fgsm_with_a_random_start(strength, model, batch):
    images, labels = batch
    random = ImageRandom(3, torch.arange(5))
    attack = FGSM(threat=Linf(eps=EPS), step_size=0.5 * EPS, random_start=True)
    found = perturb(attack, model, images, labels, random, strength=strength)
    radius = EPS * strength.radius
    start = radius * (2 * random.uniform("fgsm/start", SHAPE).double() - 1)
    delta = (start + 0.5 * EPS * strength.step * climb(model, labels)).clamp(-radius, radius)
    torch.testing.assert_close(found, images + delta, rtol=0, atol=1e-15)


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_n_fgsm(strength, model, batch):
    """Its noise goes with the radius, and nothing is cut to the ball."""
    images, labels = batch
    random = ImageRandom(3, torch.arange(5))
    attack = NFGSM(threat=Linf(eps=EPS), noise=2.0, step_size=EPS)
    found = perturb(attack, model, images, labels, random, strength=strength)
    start = 2 * EPS * strength.radius * (2 * random.uniform("nfgsm/start", SHAPE).double() - 1)
    expected = images + start + EPS * strength.step * climb(model, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=EPS)], ids=str)
def test_pgd(threat, strength, model, batch):
    """Two steps of 0.4 eps: the first strengths are limited by the steps, others by the ball."""
    images, labels = batch
    attack = PGD(threat=threat, steps=2, step_size=0.4 * EPS, random_start=False)
    found = perturb(attack, model, images, labels, ImageRandom(0), strength=strength)
    length = min(2 * 0.4 * EPS * strength.step, EPS * strength.radius)
    direction = climb(model, labels)
    if isinstance(threat, L2):
        direction = direction * model[1].weight[1].sub(model[1].weight[0]).abs().view(SHAPE).detach()
        direction = direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, images + length * direction, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(threat=Linf(eps=EPS), step_size=EPS, random_start=True),
        PGD(threat=Linf(eps=EPS), steps=3, step_size=EPS),
        NFGSM(threat=Linf(eps=EPS), step_size=EPS, noise=2.0),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_no_radius_means_clean_images_and_no_step_the_noise_of_the_start(attack, model, batch):
    images, labels = batch
    random = ImageRandom(3, torch.arange(5))
    assert perturb(attack, model, images, labels, random, strength=Strength(radius=0)) is images
    found = perturb(attack, model, images, labels, random, strength=Strength(step=0))
    width = 2 * EPS if isinstance(attack, NFGSM) else EPS
    noise = width * (2 * random.uniform(f"{type(attack).__name__.lower()}/start", SHAPE).double() - 1)
    torch.testing.assert_close(found, images + noise, rtol=0, atol=1e-15)


def test_a_step_that_was_not_given_goes_with_the_radius(model, batch):
    """PGD's own step is 2.5 eps / steps, so that one of 10 steps moves a quarter of the radius."""
    images, labels = batch
    attack = PGD(threat=L2(eps=EPS), steps=10, random_start=False)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    perturb(attack, model, images, labels, ImageRandom(0), strength=Strength(radius=0.5))
    lengths = (seen[1] - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), 0.25 * 0.5 * EPS, dtype=torch.float64), rtol=1e-10, atol=0)


def test_attacks_of_recipes_have_a_step_that_can_keep_its_length():
    """So that a warm-up of the radius leaves the step alone."""
    for name in recipes.names():
        if attack := recipes.load(name).attack:
            assert build_attack(attack).step_size == attack.relative_step * attack.eps


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_start_near_the_image(norm, model, batch):
    """x + 0.001 N(0, 1), as drawn, where ball and box are far; cut to both where they are not."""
    images, labels = batch
    random = ImageRandom(3, torch.arange(5))
    attack = PGD(threat=build_threat(norm, EPS, "near"), steps=1, step_size=1e-30)
    found = perturb(attack, model, images, labels, random)
    noise = 1e-3 * random.normal("pgd/start", SHAPE).double()
    torch.testing.assert_close(found, images + noise, rtol=0, atol=1e-15)

    delta = build_threat(norm, 5e-4, "near").sample(torch.zeros_like(images), random, use="pgd/start")
    assert delta.min() >= 0
    size = delta.amax() if norm == "Linf" else delta.flatten(1).norm(dim=1).amax()
    assert size == pytest.approx(5e-4, rel=1e-6)
    assert torch.equal(delta > 0, noise > 0)


def test_the_noise_near_the_image_has_a_deviation_of_a_thousandth(model):
    images = torch.full((2000, *SHAPE), 0.5, dtype=torch.float64)
    noise = build_threat("Linf", 0.5, "near").sample(images, ImageRandom(0, torch.arange(2000))) - images
    assert noise.std() == pytest.approx(1e-3, rel=0.02)  # 32,000 draws: standard error 0.4 %
    assert noise.mean().abs() < 3e-5
