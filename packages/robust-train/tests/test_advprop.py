"""AdvProp against its formulas, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf
from robust_models import create_model
from robust_models.layers import drop_aux_bn
from robust_train import SetupError, recipes, train
from robust_train.objectives import AdvProp
from robust_train.perturb import Strength
from robust_train.recipes import RecipeError
from timm.layers import BatchNormAct2d
from torch import nn

EPS = 0.1
ATTACK = PGD(threat=Linf(eps=EPS), steps=2, step_size=EPS / 2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 4)).double()


@pytest.fixture
def model():
    """Two batch norms of different weights and statistics."""
    model = network()
    AdvProp(attack=ATTACK).convert(model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in (model[1], model[1].bn_adv):
            for value in (norm.weight, norm.bias, norm.running_mean):
                value.copy_(torch.randn(3, generator=generator, dtype=torch.float64))
            norm.running_var.copy_(torch.rand(3, generator=generator, dtype=torch.float64) + 0.5)
    return model.train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


RANDOM = ImageRandom(5, torch.arange(6))


def log_p_of(model, x, norm, training):
    """With the statistics of the batch, or running ones, and the weights of the main or auxiliary batch norm."""
    x = torch.conv2d(x, model[0].weight, model[0].bias)
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean = x.mean((0, 2, 3))
        variance = (x - mean.view(1, 3, 1, 1)).square().mean((0, 2, 3))
    mean, variance, weight, bias = (v.view(1, 3, 1, 1) for v in (mean, variance, norm.weight, norm.bias))
    x = ((x - mean) / (variance + norm.eps).sqrt() * weight + bias).tanh()
    logits = x.flatten(1) @ model[4].weight.T + model[4].bias
    return logits - logits.exp().sum(1, keepdim=True).log()


def attacked_by_formula(model, norm, images, labels, start_share):
    """Two sign steps down the loss of (y + u) mod K, from noise where the image has drawn so."""
    rows = torch.arange(len(images))
    targets = (labels + RANDOM.integers("advprop/target", 4, 1)[:, 0]) % 4
    noise = EPS * (2 * RANDOM.uniform("pgd/start", images.shape[1:]).double() - 1)
    starts = RANDOM.uniform("advprop/start", (1, 1, 1)) < start_share
    x = torch.where(starts, (images + noise).clamp(0, 1), images)
    for _ in range(2):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(-log_p_of(model, x, norm, training=False)[rows, targets].sum(), x)
        x = (x.detach() - EPS / 2 * gradient.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    return x


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    ("form", "through", "share"), [("paper", "auxiliary", 1.0), ("easyrobust", "main", 0.4), ("paper", "main", 0.0)]
)
def test_equals_the_formula(form, through, share, soft, model, batch):
    images, labels = batch
    objective = AdvProp(attack=ATTACK, form=form, attack_through=through, start_share=share)
    main, auxiliary = model[1], model[1].bn_adv
    expected_images = attacked_by_formula(model, auxiliary if through == "auxiliary" else main, images, labels, share)
    wanted = torch.eye(4, dtype=torch.float64)[labels]
    if soft:
        labels = wanted = 0.7 * wanted + 0.3 * wanted.roll(1, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perturbed = objective.perturb(model, images, labels, RANDOM)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=1e-12)
    assert model.training
    assert model[1].status == "clean"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    clean = log_p_of(model, images, main, training=True)
    attacked = log_p_of(model, perturbed, auxiliary, training=True)
    expected = -(wanted * (clean + attacked)).sum(1) / (1 if form == "paper" else 2)
    gradients = torch.autograd.grad(expected.mean(), list(model.parameters()))
    losses, metrics = objective.losses(model, images, perturbed, labels)
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)
    losses.mean().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12)
    assert metrics["accuracy"] == (clean.argmax(1) == wanted.argmax(1)).sum()
    assert metrics["adversarial_accuracy"] == (attacked.argmax(1) == wanted.argmax(1)).sum()
    assert model[1].num_batches_tracked == before["1.num_batches_tracked"] + 1
    assert model[1].bn_adv.num_batches_tracked == before["1.bn_adv.num_batches_tracked"] + 1


def test_share_of_random_starts():
    images, labels = torch.full((400, 1, 2, 2), 0.5), torch.zeros(400, dtype=torch.int64)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(blind[1].weight)  # without gradients, attacks stay where they start
    objective = AdvProp(attack=ATTACK, start_share=0.4, batch_norms="single", attack_through="main")
    made = objective.perturb(blind, images, labels, ImageRandom(0, torch.arange(400)))
    assert 120 < (made != images).flatten(1).any(1).sum() < 200
    half = objective.perturb(blind, images, labels, ImageRandom(0, torch.arange(400)), strength=Strength(0.5, 0.5))
    torch.testing.assert_close(half - images, (made - images) / 2)


def test_one_norm_for_both_where_the_model_is_left_alone(batch):
    images, labels = batch
    model = network().eval()
    objective = AdvProp(attack=ATTACK, batch_norms="single", attack_through="main", form="easyrobust")
    objective.convert(model)
    assert type(model[1]) is nn.BatchNorm2d
    perturbed = objective.perturb(model, images, labels, RANDOM)
    losses, _ = objective.losses(model, images, perturbed, labels)
    log_p = [log_p_of(model, x, model[1], training=False)[torch.arange(6), labels] for x in (images, perturbed)]
    torch.testing.assert_close(losses, -(log_p[0] + log_p[1]) / 2, rtol=1e-11, atol=0)


def test_fused_activations_survive():
    """timm's BatchNormAct2d holds the activation: 49 of them in efficientnet_b0."""
    model = create_model("efficientnet_b0", num_classes=4)
    before = [type(module.act) for module in model.modules() if isinstance(module, BatchNormAct2d)]
    AdvProp(attack=ATTACK).convert(model)
    after = [type(module.act) for module in model.modules() if isinstance(module, BatchNormAct2d)]
    assert (len(before), after) == (49, before)


def test_models_without_batch_norm_are_refused():
    with pytest.raises(SetupError, match=r"has none: choose another model, or set objective\.batch_norms to single"):
        AdvProp(attack=ATTACK).convert(nn.Linear(2, 2))


def test_the_recipe_trains_and_the_auxiliary_batch_norms_can_go(tmp_path):
    recipe = recipes.load("digits-advprop").replace(epochs=1, batch_size=640, **{"evaluation.steps": 1})
    report = train(recipe, tmp_path, device="cpu")
    record = report.history[-1]
    assert (record["update"], set(record) >= {"loss", "accuracy", "adversarial_accuracy"}) == (2, True)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = report.model(images)
        plain = drop_aux_bn(report.model)
        assert torch.equal(plain(images), expected)
    assert plain.state_dict().keys() == create_model("test_resnet", num_classes=10, in_chans=1).state_dict().keys()


def test_settings_out_of_range():
    recipe = recipes.load("digits-advprop")
    with pytest.raises(RecipeError, match=r"objective.start_share must lie in \[0, 1\], got 1.5"):
        recipe.replace(**{"objective.start_share": 1.5})
    with pytest.raises(RecipeError, match=r"objective\.attack_through must be main with single batch norms"):
        recipe.replace(**{"objective.batch_norms": "single", "objective.attack_through": "auxiliary"})
