"""Adversarial training against its formulas, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import FGSM, PGD, ImageRandom, Linf
from robust_train.objectives import Adversarial

EPS = 0.1


@pytest.fixture
def model(classifier):
    return classifier()


def logits_of(model, x):
    """The network once more: convolution, the affine map of batch norm with running statistics, ReLU, linear."""
    convolution, norm, linear = model[0], model[1], model[4]
    x = torch.conv2d(x, convolution.weight, convolution.bias, padding=1)
    shape = (1, 3, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    x = (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    return x.flatten(1) @ linear.weight.T + linear.bias


def losses_of(logits, labels, smoothing=0.0):
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    return -(1 - smoothing) * log_p[torch.arange(len(labels)), labels] - smoothing * log_p.mean(1)


def uniform_start(images, random, use):
    """eta ~ U(-eps, eps), clipped to the box."""
    uniform = random.uniform(use, images.shape[1:]).double()  # the attacks draw 24 bits
    return (images + EPS * (2 * uniform - 1)).clamp(0, 1)


def sign_step(model, x, images, labels, step):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(losses_of(logits_of(model, x), labels).sum(), x)
    return torch.minimum(torch.maximum(x.detach() + step * gradient.sign(), images - EPS), images + EPS).clamp(0, 1)


def attacked_by_formula(method, model, images, labels, random):
    if method == "fgsm-rs":
        start = uniform_start(images, random, "fgsm/start")
        return sign_step(model, start, images, labels, 1.25 * EPS)
    x = uniform_start(images, random, "pgd/start")
    for _ in range(4):
        x = sign_step(model, x, images, labels, EPS / 2)
    return x


ATTACKS = {
    "fgsm-rs": FGSM(threat=Linf(eps=EPS), step_size=1.25 * EPS, random_start=True),
    "pgd": PGD(threat=Linf(eps=EPS), steps=4, step_size=EPS / 2),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("method", ATTACKS)
def test_equals_the_formula(method, smoothing, model, batch):
    images, labels = batch
    random = ImageRandom(5, torch.arange(6))
    objective = Adversarial(attack=ATTACKS[method], label_smoothing=smoothing)

    expected_images = attacked_by_formula(method, model, images, labels, random)
    perturbed = objective.perturb(model, images, labels, random)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=1e-12)
    assert (perturbed - images).abs().max() > 0.5 * EPS

    expected = losses_of(logits_of(model, expected_images), labels, smoothing).mean()
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, metrics = objective(model, images, labels, random)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(metrics["loss"], 6 * expected.detach(), rtol=1e-12, atol=0)
    correct = (logits_of(model, expected_images).argmax(1) == labels).sum()
    assert metrics["adversarial_accuracy"] == correct


def test_the_attack_itself_has_no_label_smoothing(model, batch):
    images, labels = batch
    random = ImageRandom(5, torch.arange(6))
    made = [
        Adversarial(attack=ATTACKS["pgd"], label_smoothing=s).perturb(model, images, labels, random) for s in (0, 0.5)
    ]
    assert torch.equal(*made)


def test_the_second_half_can_be_repeated_on_the_same_images(model, batch):
    """As sharpness-aware optimizers need it."""
    images, labels = batch
    objective = Adversarial(attack=ATTACKS["fgsm-rs"])
    perturbed = objective.perturb(model, images, labels, ImageRandom(0))
    first, second = (objective.loss(model, images, perturbed, labels)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_batch_norm_moves_in_the_loss_but_not_in_the_attack(model, batch):
    images, labels = batch
    model.train()
    objective = Adversarial(attack=ATTACKS["pgd"])
    before = model[1].num_batches_tracked.clone()
    perturbed = objective.perturb(model, images, labels, ImageRandom(0))
    assert model[1].num_batches_tracked == before
    objective.loss(model, images, perturbed, labels)
    assert model[1].num_batches_tracked == before + 1
