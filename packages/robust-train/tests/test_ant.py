"""Adversarial noise training."""

import io
import os
import signal

import pytest
import torch
from robust_attacks import ImageRandom
from robust_augs import AdversarialNoise, NoiseGenerator
from robust_train import Interrupted, recipes, train
from robust_train.objectives import ANT
from robust_train.recipes import RecipeError
from robust_train.seeds import derive
from torch import nn

EPS = 1.5


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)).double()
    with torch.no_grad():
        network(torch.rand(16, 2, 6, 6, dtype=torch.float64))
    return network.train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


def objective(**options):
    noise = AdversarialNoise(network=NoiseGenerator(2), eps=EPS, clip_aware=False)
    return ANT(**{"noise": noise, "remember_every": 3, "restart_every": 5, "warmup": 0, **options})


def weights_of(ant):
    return [value.detach().clone() for value in ant.noise.network.parameters()]


def noisy_by_formula(weights, images, normals):
    """clip(x + eps n / |n|) with n = z + four 1x1 convolutions of z with ReLU between them."""
    hidden = normals
    for layer in range(4):
        weight, bias = weights[2 * layer : 2 * layer + 2]
        hidden = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], hidden) + bias.view(1, -1, 1, 1)
        hidden = hidden.clamp(min=0) if layer < 3 else hidden
    noise = hidden + normals
    return (images + EPS * noise / noise.square().sum((1, 2, 3), keepdim=True).sqrt()).clamp(0, 1)


def cross_entropy_by_formula(model, x, labels):
    """With the running statistics of batch norm, as in eval mode."""
    convolution, norm, linear = model[0], model[1], model[4]
    x = torch.conv2d(x, convolution.weight, convolution.bias)
    shape = (1, 3, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    x = (x * norm.weight.view(shape) + norm.bias.view(shape)).tanh()
    logits = x.flatten(1) @ linear.weight.T + linear.bias
    return -(logits - logits.exp().sum(1, keepdim=True).log())[torch.arange(len(x)), labels]


def test_equals_the_formula(model, batch):
    """Three updates: Adam up the loss of the model in eval mode, then half of the images with the new noise."""
    images, labels = batch
    ant, lr = objective(), 1e-4
    means = squares = None
    for update in range(1, 4):
        random = ImageRandom(update, torch.arange(6))
        generator = torch.Generator().manual_seed(derive(update, "ant", 0))
        if update == 1:
            start = NoiseGenerator(2)
            start.reset_parameters(generator=generator)
            weights = [value.detach().double() for value in start.parameters()]
            means = squares = [torch.zeros_like(weight) for weight in weights]
        perturbed = ant.perturb(model, images, labels, random)

        weights = [weight.requires_grad_() for weight in weights]
        normals = torch.randn(images.shape, generator=generator)
        noisy = noisy_by_formula(weights, images, normals.double())
        gradients = torch.autograd.grad(-cross_entropy_by_formula(model, noisy, labels).mean(), weights)
        means = [0.9 * mean + 0.1 * gradient for mean, gradient in zip(means, gradients, strict=True)]
        squares = [0.999 * square + 0.001 * g.square() for square, g in zip(squares, gradients, strict=True)]
        weights = [
            (w - lr * mean / (1 - 0.9**update) / ((square / (1 - 0.999**update)).sqrt() + 1e-8)).detach()
            for w, mean, square in zip(weights, means, squares, strict=True)
        ]
        for weight, expected in zip(weights_of(ant), weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-13)

        draws = ant.noise.sample(images.shape, generator)
        changed = draws.version == 0
        assert changed.sum() == 3
        assert (draws.version == -1).sum() == 3
        expected = torch.where(
            changed.view(-1, 1, 1, 1), noisy_by_formula(weights, images, draws.normals.double()), images
        )
        torch.testing.assert_close(perturbed, expected, rtol=0, atol=1e-10)
        ant.learn([])

        model.eval()
        losses, metrics = ant.losses(model, images, perturbed, labels)
        model.train()
        torch.testing.assert_close(losses, cross_entropy_by_formula(model, expected, labels), rtol=1e-9, atol=0)
        assert 0 <= metrics["augmented_accuracy"] <= 6


def test_the_network_climbs_and_the_model_stays_as_it_is(model, batch):
    images, labels = batch
    with torch.no_grad():
        model[4].weight.mul_(10)  # a model that noise hurts
    before = {name: value.clone() for name, value in model.state_dict().items()}
    still, climbed = objective(lr=1e-9), objective(warmup=100, warmup_lr=1e-2, lr=1e-9)
    state = torch.get_rng_state()

    def loss(ant):
        generator = torch.Generator().manual_seed(7)
        return -ant.noise.climb(model, images, labels, generator=generator).item()

    for ant in (still, climbed):
        ant.perturb(model, images, labels, ImageRandom(0, torch.arange(6)))
    assert loss(climbed) > loss(still) + 0.01
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_remembers_and_starts_anew(model, batch):
    images, labels = batch
    ant, seen = objective(), []
    for update in range(11):
        ant.perturb(model, images, labels, ImageRandom(update, torch.arange(6)))
        steps = ant.state_dict()["optimizer"]["state"][0]["step"]
        seen.append((int(steps), len(ant.noise.network.earlier)))
        before = weights_of(ant)
        ant.learn([])
        if update == 2:
            vector = torch.cat([weight.flatten() for weight in before])
            torch.testing.assert_close(ant.noise.network.earlier[0], vector, rtol=0, atol=0)
    assert seen == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (1, 3)]


def test_parts_of_a_batch_start_anew_once(model, batch):
    images, labels = batch
    ant = objective()
    for part in (slice(0, 3), slice(3, 6)):
        ant.perturb(model, images[part], labels[part], ImageRandom(0, torch.arange(6)[part]))
    assert ant.state_dict()["optimizer"]["state"][0]["step"] == 2


def test_goes_on_from_its_state_bit_for_bit(model, batch):
    images, labels = batch

    def go(ant, updates):
        for update in updates:
            made = ant.perturb(model, images, labels, ImageRandom(update, torch.arange(6)))
            ant.learn([])
        return made

    unbroken = objective()
    expected = go(unbroken, range(9))
    first, second = objective(), objective()
    go(first, range(7))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(go(second, range(7, 9)), expected)


@pytest.fixture
def recipe():
    changes = {"epochs": 2, "batch_size": 320, "checkpoint_every": 1, "evaluation.steps": 1}
    changes |= {"objective.remember_every": 2, "objective.restart_every": 3, "objective.warmup": 2}
    return recipes.load("digits-ant").replace(**changes)


def test_a_run_that_was_interrupted_ends_with_the_same_weights(recipe, tmp_path, monkeypatch):
    expected = train(recipe, tmp_path / "unbroken", device="cpu").model.state_dict()
    learn, seen = ANT.learn, []

    def interrupted(self, parts):
        learn(self, parts)
        seen.append(None)
        if len(seen) in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ANT, "learn", interrupted)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "broken", device="cpu")
    report = train(recipe, tmp_path / "broken", device="cpu")
    assert report.resumed == 5
    for name, value in report.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_recipe_has_the_published_settings():
    """Shares, Adam's learning rates and steps; eps as much per pixel as 135 for 3 x 224 x 224."""
    settings = recipes.load("digits-ant").objective
    assert settings.eps == pytest.approx(135 * (64 / 150528) ** 0.5, rel=1e-3)
    assert (settings.share, settings.replay, settings.kernel_size) == (0.5, 0.4, 1)
    assert (settings.lr, settings.warmup_lr) == (1e-4, 5e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective.eps": -1.0}, "objective.eps must be a positive"),
        ({"objective.lr": 0.0}, "objective.lr must be positive, got 0"),
        ({"objective.restart_every": 0}, "objective.restart_every must be positive"),
        ({"objective.warmup": -1}, "objective.warmup must not be negative"),
        ({"objective.kernel_size": 2}, "objective.kernel_size must be one of 1, 3"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(RecipeError, match=message):
        recipes.load("digits-ant").replace(**change)
