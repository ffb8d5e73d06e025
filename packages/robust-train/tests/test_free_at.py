"""Free adversarial training against its algorithm, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_optim import SAM
from robust_train import recipes, train
from robust_train.objectives import FreeAT
from torch import nn

EPS = 0.05


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)).double()


@pytest.fixture
def batches():
    """Three batches, the last of which is short."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(14, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (14,), generator=generator)
    return list(zip(images.split(6), labels.split(6), strict=True))


def by_algorithm(batches, replays, lr):
    """Algorithm 1 of the paper, with x + delta cut to the box; cross-entropy and descent by hand."""
    model, delta = network(), torch.zeros(6, 1, 4, 4, dtype=torch.float64)
    weights = list(model.parameters())
    for images, labels in batches:
        n = len(images)
        for _ in range(replays):
            x = (images + delta[:n]).clamp(0, 1).requires_grad_()
            logits = model(x)
            loss = (logits.logsumexp(1) - logits[torch.arange(n), labels]).mean()
            *gradients, to_images = torch.autograd.grad(loss, [*weights, x])
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= lr * gradient
            moved = delta[:n] + EPS * to_images.sign()
            delta[:n] = torch.where(moved > EPS, EPS, torch.where(moved < -EPS, -EPS, moved))
    return weights, delta


def by_objective(batches, objective, lr, parts=1):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for images, labels in batches:
        for _ in range(objective.replays):
            optimizer.zero_grad()
            made = []
            for x, y, i in zip(*(t.chunk(parts) for t in (images, labels, torch.arange(len(images)))), strict=True):
                made.append((x, objective.perturb(model, x, y, ImageRandom(0, i)), y))
            for x, x_new, y in made:
                (objective.losses(model, x, x_new, y)[0].sum() / len(images)).backward()
            optimizer.step()
            objective.learn(made)
    return list(model.parameters())


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("replays", [1, 3])
def test_equals_the_algorithm(replays, parts, batches):
    """The deltas bit for bit, also of the places that the short batch leaves alone, and with accumulated gradients."""
    weights, delta = by_algorithm(batches, replays, lr=0.3)
    objective = FreeAT(eps=EPS, replays=replays)
    found = by_objective(batches, objective, lr=0.3, parts=parts)
    assert torch.equal(objective.delta, delta)
    assert objective.delta.abs().max() == EPS
    for one, other in zip(found, weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_images_are_in_ball_and_box_and_delta_is_carried_over(batches):
    objective, model = FreeAT(eps=EPS), network()
    for images, labels in batches:
        before = None if objective.delta is None else objective.delta.clone()
        x = objective.perturb(model, images, labels)
        shift = 0 if before is None else before[: len(images)]
        assert torch.equal(x, (images + shift).clamp(0, 1))
        assert (x - images).abs().max() <= EPS + 1e-15
        objective.loss(model, images, x, labels)[0].backward()
        objective.learn([(images, x, labels)])
        if before is not None:
            assert torch.equal(objective.delta[len(images) :], before[len(images) :])


def test_the_short_batch_may_come_first(batches):
    images, labels = batches[0]
    objective, model = FreeAT(eps=EPS), network()
    for n in (2, 6):
        before = objective.delta
        x = objective.perturb(model, images[:n], labels[:n])
        if n == 6:
            assert (before != 0).any()
            assert torch.equal(x[:2], (images[:2] + before).clamp(0, 1))
            assert torch.equal(x[2:], images[2:])
        objective.loss(model, images[:n], x, labels[:n])[0].backward()
        objective.learn([(images[:n], x, labels[:n])])
    assert objective.delta.shape == images.shape
    assert (objective.delta != 0).any((1, 2, 3)).all()


def test_the_last_pass_of_a_sharpness_aware_step_moves_delta(batches):
    images, labels = batches[0]
    objective, model = FreeAT(eps=EPS), network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=2.0)
    x = objective.perturb(model, images, labels)
    gradients = []

    def closure():
        optimizer.zero_grad()
        loss, _ = objective.loss(model, images, x, labels)
        gradients.append(torch.autograd.grad(loss, x, retain_graph=True)[0])
        loss.backward()
        return loss

    optimizer.step(closure)
    objective.learn([(images, x, labels)])
    assert (gradients[0].sign() != gradients[1].sign()).any()
    assert torch.equal(objective.delta, EPS * gradients[1].sign())


def test_pixels_without_a_finite_gradient_rest(batches):
    """As where fp16 overflows."""
    images, labels = batches[0]
    objective = FreeAT(eps=EPS)
    x = objective.perturb(network(), images, labels)
    x.grad = torch.full_like(x, torch.nan)
    x.grad[0] = torch.inf
    objective.learn([(images, x, labels)])
    assert (objective.delta[0] == EPS).all()
    assert (objective.delta[1:] == 0).all()


def test_learning_without_a_backward_pass_is_an_error(batches):
    images, labels = batches[0]
    objective = FreeAT(eps=EPS)
    x = objective.perturb(network(), images, labels)
    with pytest.raises(RuntimeError, match="FreeAT learns from a backward pass"):
        objective.learn([(images, x, labels)])


def test_the_delta_survives_a_checkpoint(batches):
    objective, other = FreeAT(eps=EPS), FreeAT(eps=EPS)
    other.load_state_dict(objective.state_dict())
    assert other.delta is None
    by_objective(batches, objective, lr=0.1)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.perturb(network(), *batches[0]), objective.perturb(network(), *batches[0]))


def test_the_recipe_trains_and_resumes_bit_for_bit(tmp_path, broken_off):
    recipe = recipes.load("digits-free-at")
    assert (recipe.objective.replays, recipe.objective.eps, recipe.attack) == (4, 0.15, None)
    recipe = recipe.replace(**{"epochs": 2, "batch_size": 500, "evaluation.steps": 1, "checkpoint_every": 1})
    whole = train(recipe, tmp_path / "whole", device="cpu")
    assert whole.history[-1]["update"] == 6  # batches of 500, 500 and 212

    report = broken_off(recipe, tmp_path / "broken", begun=3)
    for one, other in zip(report.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("eps", 8, r"objective\.eps is in units of \[0, 1\] pixels and at most 1"),
        ("replays", 0, r"objective\.replays must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(setting, value, message):
    with pytest.raises(ValueError, match=message):
        recipes.load("digits-free-at").replace(**{f"objective.{setting}": value})
