"""Each sign of misleading numbers is raised by a model that has it, and not by a sound one."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf, sanity
from robust_attacks.report import Stage
from robust_attacks.square import Square
from robust_attacks.worst_case import WorstCase
from torch import nn

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return 0.2 + 0.6 * torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def flags_of(model, images, stochastic=False):
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    return {flag.name: flag for flag in sanity.before(model, images, labels, CPU, 3, stochastic)}


def test_a_sound_model_raises_no_flag(model, images):
    assert flags_of(model, images) == {}
    assert sanity.training_mode(model) == []


def test_randomised_outputs(model, images):
    noisy = lambda x: model(x) + torch.randn(len(x), 3)  # noqa: E731
    flag = flags_of(noisy, images)["randomised"]
    assert flag.value > 1e-4
    assert 'use auto_attack(..., version="rand")' in flag.message
    assert "randomised" not in flags_of(noisy, images, stochastic=True)


def test_probabilities(model, images):
    assert "let the model return logits" in flags_of(lambda x: model(x).softmax(dim=1), images)["probabilities"].message
    assert "probabilities" not in flags_of(lambda x: model(x).sigmoid(), images)


def test_zero_gradients_are_counted(model, images):
    def flat(x):
        dead = (x[:, 0, 0, 0] > images[:, 0, 0, 0].median())[:, None]
        return torch.where(dead, model(x).detach().round(), model(x))

    flags = sanity.before(flat, images, model(images).argmax(dim=1), CPU, 3, False)
    zero = [flag for flag in flags if flag.name == "zero-gradient"]
    assert [flag.value for flag in zero] == [0.5, 0.5]
    assert "4 of 8 images have a cross-entropy gradient of exactly zero" in zero[0].message


def test_training_mode():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten()).eval()
    assert sanity.training_mode(model) == []
    model[1].train()
    (flag,) = sanity.training_mode(model)
    assert flag.value == 1
    assert "(1), so images influence each other: call model.eval()" in flag.message
    model.train()
    assert sanity.training_mode(model)[0].value == 2


def test_models_that_ask_for_gradients_themselves(model, images):
    def adaptive(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
        return model(x - 0.01 * gradient)

    functions = torch.autograd.grad, torch.autograd.backward
    assert "adaptive attack" in flags_of(adaptive, images)["dynamic-model"].message
    assert functions == (torch.autograd.grad, torch.autograd.backward)


def stage(name, robust):
    return Stage(name, "", torch.tensor(robust).bool(), 0, 0, 0.0)


def test_attacks_without_gradients_that_win_are_a_sign():
    before, same, fewer = stage("apgd-t", [1, 1, 1, 0]), stage("square", [1, 1, 1, 0]), stage("square", [1, 0, 1, 0])
    assert sanity.after([before, same]) == []
    (flag,) = sanity.after([before, fewer])
    assert flag.name == "square-wins"
    assert flag.value == 0.25
    assert sanity.after([before, stage("fab-t", [0, 0, 1, 0])])[0].name == "fab-wins"
    assert sanity.after([stage("square", [1, 1, 1, 1]), stage("apgd-t", [0, 0, 0, 0])]) == []


def test_a_step_function_is_flagged_and_square_still_works(images):
    """No gradient anywhere: PGD is blind, Square is not."""
    step = lambda x: torch.stack(((x.mean(dim=(1, 2, 3)) * 40).floor() / 40, 0 * x[:, 0, 0, 0] + 0.49), dim=1)  # noqa: E731
    labels = torch.zeros(8, dtype=torch.int64)
    images = images - images.mean(dim=(1, 2, 3), keepdim=True) + 0.505
    threat = Linf(eps=0.1)
    attacks = [PGD(threat=threat, steps=5, random_start=False), Square(threat=threat, queries=200)]
    report = WorstCase(attacks).run(step, images.clamp(0, 1), labels)
    assert report.stages["pgd"].tolist() == [True] * 8
    assert report.stages["square"].tolist() == [False] * 8
    assert {"zero-gradient", "square-wins"} <= {flag.name for flag in report.flags}
    assert "warning (square-wins): Square broke 100.0% of the images" in str(report)


def test_a_sweep_finds_a_sound_model_sound(images):
    weight = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    model = lambda x: (x.flatten(1) - 0.5) @ weight  # noqa: E731  # every class has its corner of the box
    labels = model(images).argmax(dim=1)
    assert sanity.sweep(model, images, labels, random=ImageRandom(0)) == []
    assert sanity.sweep(model, images[:0], labels[:0], random=ImageRandom(0)) == []


def test_a_sweep_shows_gradients_that_lead_nowhere(model, images):
    """Far away the same model, but gradients see a constant: attacks do not get on."""
    masked = lambda x: model(images[: len(x)]) + (0 * x).sum(dim=(1, 2, 3))[:, None]  # noqa: E731
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    flags = {flag.name: flag.value for flag in sanity.sweep(masked, images, labels, random=ImageRandom(0))}
    assert flags == {"unbounded-attack": 1.0, "flat-loss": 1.0}


def test_a_sweep_shows_verdicts_that_change_without_a_cause(model, images):
    calls = [0]

    def moody(x):
        calls[0] += 1
        return model(x) * (-1) ** calls[0]

    with torch.no_grad():
        labels = (-model(images)).argmax(dim=1)
    flags = [flag.name for flag in sanity.sweep(moody, images, labels, random=ImageRandom(0))]
    assert "attack-without-room" in flags
