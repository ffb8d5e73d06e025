"""GradAlign against its formula, written with plain operations in float64."""

import pytest
import timm
import torch
from robust_attacks import FGSM, L2, PGD, ImageRandom, Linf
from robust_train import SetupError, recipes, train
from robust_train.objectives import Adversarial, GradAlign
from robust_train.perturb import Strength
from torch import nn

EPS = 0.1
ATTACK = FGSM(threat=Linf(eps=EPS), step_size=1.25 * EPS)


@pytest.fixture
def model(classifier):
    network = classifier(nn.Softplus)
    torch.nn.init.constant_(network[1].weight, 100)  # so that gradients turn within the ball
    return network


def losses_of(logits, targets):
    return -(targets * (logits - logits.exp().sum(1, keepdim=True).log())).sum(1)


def input_gradients(model, x, targets, **options):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(losses_of(model(x), targets).sum(), x, **options)[0]


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_formula(soft, model, batch):
    images, labels = batch
    onehot = nn.functional.one_hot(labels, 4).double()
    targets = 0.7 * onehot + 0.3 * onehot.flip(0) if soft else onehot
    given = targets if soft else labels
    random = ImageRandom(5, torch.arange(6))
    objective = GradAlign(attack=ATTACK, weight=0.7)

    g = input_gradients(model, images, targets)
    x_new = (images + (1.25 * EPS * g.sign()).clamp(-EPS, EPS)).clamp(0, 1)
    x_eta = images + EPS * (2 * random.uniform("grad_align/noise", images.shape[1:]).double() - 1)
    perturbed = objective.perturb(model, images, given, random)
    torch.testing.assert_close(perturbed[:, 0], x_new, rtol=0, atol=1e-12)
    torch.testing.assert_close(perturbed[:, 1], x_eta, rtol=0, atol=1e-12)
    torch.testing.assert_close(perturbed[:, 2], g, rtol=1e-12, atol=1e-14)
    assert not perturbed.requires_grad

    g_eta = input_gradients(model, x_eta, targets, create_graph=True)
    dot = (g * g_eta).sum((1, 2, 3))
    cosine = dot / ((g * g).sum((1, 2, 3)) * (g_eta * g_eta).sum((1, 2, 3))).sqrt()
    expected = losses_of(model(x_new), targets).mean() + 0.7 * (1 - cosine.mean())
    assert 0.01 < 1 - cosine.mean() < 0.9
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    loss, metrics = objective(model, images, given, random)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(metrics["alignment"], cosine.detach().sum(), rtol=1e-12, atol=0)
    assert metrics["adversarial_accuracy"] == (model(x_new).argmax(1) == labels).sum()


def test_the_step_is_that_of_fgsm(model, batch):
    images, labels = batch
    for strength in (Strength(), Strength(0.5, 1.0), Strength(1.0, 0.25), Strength(0.0, 0.0)):
        views = GradAlign(attack=ATTACK).perturb(model, images, labels, ImageRandom(0), strength=strength)
        plain = Adversarial(attack=ATTACK).perturb(model, images, labels, ImageRandom(0), strength=strength)
        torch.testing.assert_close(views[:, 0], plain, rtol=0, atol=1e-15)
        noise = (views[:, 1] - images).abs().max()
        assert noise <= strength.radius * EPS
        assert noise >= 0.8 * strength.radius * EPS


def test_without_the_second_term_it_is_adversarial_training(model, batch):
    images, labels = batch
    views = GradAlign(attack=ATTACK).perturb(model, images, labels, ImageRandom(0))
    losses, _ = GradAlign(attack=ATTACK, weight=0.0).losses(model, images, views, labels)
    torch.testing.assert_close(losses, Adversarial(attack=ATTACK).losses(model, images, views[:, 0], labels)[0])


def dead_for_dark_images():
    """ReLU units that dark images do not reach, so that their gradients are zero."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        network[1].weight.abs_()
        network[1].bias.fill_(-0.6)
    return network


def test_images_without_a_gradient_are_left_out_of_the_mean(batch):
    images, labels = batch
    model = dead_for_dark_images()
    images = images.clone()
    images[1::2] = 0
    objective = GradAlign(attack=ATTACK, weight=2.0)
    views = objective.perturb(model, images, labels, ImageRandom(0, torch.arange(6)))
    assert (views[1::2, 2] == 0).all()
    loss, _ = objective.loss(model, images, views, labels)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]

    onehot = nn.functional.one_hot(labels, 4).double()
    kept = slice(0, None, 2)
    g, x_eta = views[kept, 2], views[kept, 1]
    g_eta = input_gradients(model, x_eta, onehot[kept], create_graph=True)
    cosine = nn.functional.cosine_similarity(g.flatten(1), g_eta.flatten(1), eps=0)
    expected = losses_of(model(views[:, 0]), onehot).mean() + 2 * (1 - cosine.mean())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    expected_gradients = torch.autograd.grad(
        expected, list(model.parameters()), materialize_grads=True, allow_unused=True
    )
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


def test_with_no_gradient_at_all_the_second_term_is_zero(batch):
    images, labels = torch.zeros_like(batch[0]), batch[1]
    model = dead_for_dark_images()
    objective = GradAlign(attack=ATTACK)
    views = objective.perturb(model, images, labels, ImageRandom(0))
    loss, metrics = objective.loss(model, images, views, labels)
    loss.backward()
    assert loss == Adversarial(attack=ATTACK).loss(model, images, views[:, 0], labels)[0]
    assert metrics["alignment"] == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("bias", [0.0, 60.0])
def test_the_gradients_of_a_linear_model_of_two_classes_are_parallel(bias):
    """Also those of sure predictions, of some 1e-26, whose squares float32 does not have."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    model[1].bias.data.copy_(torch.tensor([bias, 0.0]))
    images, labels = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)
    objective = GradAlign(attack=ATTACK)
    views = objective.perturb(model, images, labels, ImageRandom(0))
    _, metrics = objective.losses(model, images, views, labels)
    assert 0 < views[:, 2].abs().max() < (1 if bias == 0 else 1e-20)
    assert metrics["alignment"] == pytest.approx(8, rel=1e-6)


def test_attention_is_differentiated_twice(batch):
    """The fused kernels cannot be."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=4, img_size=32)
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    assert any(getattr(module, "fused_attn", False) for module in model.modules())
    loss, _ = GradAlign(attack=ATTACK, weight=1.0)(model, images, labels, ImageRandom(0))
    loss.backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_in_mixed_precision_both_gradients_are_exact(batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    seen = []
    model[1].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    images, labels = batch[0].float(), batch[1]
    objective = GradAlign(attack=ATTACK, precision=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        views = objective.perturb(model, images, labels, ImageRandom(0))
        objective.losses(model, images, views, labels)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.parametrize(("batch_norm", "moved"), [("train_moving", 1), ("train", 0), ("eval", 0)])
def test_batch_norm_moves_in_both_passes_of_the_loss_and_as_told_in_the_attack(batch_norm, moved, model, batch):
    images, labels = batch
    model.train()
    before = int(model[1].num_batches_tracked)
    objective = GradAlign(attack=ATTACK, batch_norm=batch_norm)
    views = objective.perturb(model, images, labels, ImageRandom(0))
    assert model[1].num_batches_tracked == before + moved
    assert model.training
    first, second = (objective.loss(model, images, views, labels)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert model[1].num_batches_tracked == before + moved + 4


def test_the_losses_can_be_looked_at_without_gradients(model, batch):
    """As ESAM does when it chooses images."""
    images, labels = batch
    objective = GradAlign(attack=ATTACK)
    views = objective.perturb(model, images, labels, ImageRandom(0))
    with torch.no_grad():
        losses, _ = objective.losses(model, images, views, labels)
    assert torch.equal(losses, objective.losses(model, images, views, labels)[0].detach())


def test_the_recipe_trains(tmp_path):
    recipe = recipes.load("digits-grad-align")
    assert (recipe.objective.weight, recipe.attack.relative_step, recipe.attack.start) == (0.2, 1.25, "image")
    tiny = {"epochs": 1, "batch_size": 700, "evaluation.steps": 1}
    report = train(recipe.replace(**tiny), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
    assert -1 <= report.history[-1]["alignment"] <= 1


def test_other_attacks_are_refused(tmp_path):
    for attack in (
        PGD(threat=Linf(eps=EPS)), FGSM(threat=L2(eps=EPS)), FGSM(threat=Linf(eps=EPS), random_start=True)
    ):  # fmt: skip
        with pytest.raises(ValueError, match="its attack must be FGSM from the image itself in Linf"):
            GradAlign(attack=attack)
    recipe = recipes.load("digits-grad-align").replace(**{"attack.start": "uniform"})
    with pytest.raises(SetupError, match=r"attack\.name fgsm, start image, norm Linf"):
        train(recipe, tmp_path / "run", device="cpu")
