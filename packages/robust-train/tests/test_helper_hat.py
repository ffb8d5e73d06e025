"""Helper-based adversarial training against its formula, written with plain operations in float64."""

import pytest
import torch
from robust_attacks import PGD, ImageRandom
from robust_models import create_model, save_weights
from robust_train import SetupError, recipes, train
from robust_train.objectives import TRADES, Context, HelperHAT
from robust_train.perturb import build_attack, build_threat
from torch import nn


@pytest.fixture
def model(classifier):
    return classifier(stretch=4)


@pytest.fixture
def standard(classifier):
    return classifier(stretch=4, seed=1)


ATTACK = PGD(threat=build_threat("Linf", 0.3, "near"), steps=3, step_size=0.15)


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_formula(soft, model, standard, batch):
    images, labels = batch
    onehot = nn.functional.one_hot(labels, 4).double()
    targets = 0.7 * onehot + 0.3 * onehot.flip(0) if soft else onehot
    given = targets if soft else labels
    objective = HelperHAT(attack=ATTACK, standard=standard, beta=2.5, gamma=0.5, reach=2.0)
    perturbed = objective.perturb(model, images, given, ImageRandom(5))
    assert torch.equal(perturbed, TRADES(attack=ATTACK).perturb(model, images, given, ImageRandom(5)))

    helpers = images + 2 * (perturbed - images)
    assert helpers.min() < 0  # not cut to the box
    y = standard(perturbed).argmax(1)
    assert (y != labels).any()
    assert (y != standard(images).argmax(1)).any()
    p, q, r = (model(x).exp() / model(x).exp().sum(1, keepdim=True) for x in (images, perturbed, helpers))
    divergence = (p * (p / q).log()).sum(1)
    expected = (-(targets * p.log()).sum(1) + 2.5 * divergence - 0.5 * r[torch.arange(6), y].log()).mean()
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, metrics = objective.loss(model, images, perturbed, given)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in zip(model.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    assert metrics["helper_accuracy"] == (r.argmax(1) == y).sum()
    assert metrics["adversarial_accuracy"] == (q.argmax(1) == labels).sum()
    assert all(parameter.grad is None for parameter in standard.parameters())


def test_without_the_helpers_it_is_trades(model, standard, batch):
    images, labels = batch
    perturbed = torch.rand_like(images)
    losses, _ = HelperHAT(attack=ATTACK, standard=standard, gamma=0.0).losses(model, images, perturbed, labels)
    assert torch.equal(losses, TRADES(attack=ATTACK, beta=2.5).losses(model, images, perturbed, labels)[0])


def test_the_standard_model_stays_as_it_is(model, standard, batch):
    """Called in eval mode wherever it is, and given back as it was."""
    images, labels = batch
    standard.train()
    standard[1].eval()
    before = {name: value.clone() for name, value in standard.state_dict().items()}
    modes = [module.training for module in standard.modules()]
    seen = []
    standard.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    objective = HelperHAT(attack=ATTACK, standard=standard)
    perturbed = objective.perturb(model, images, labels, ImageRandom(0))
    first, second = (objective.loss(model, images, perturbed, labels)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert seen == [False, False]
    assert [module.training for module in standard.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())


def test_any_function_may_be_the_standard_model(model, standard, batch):
    images, labels = batch
    objectives = [HelperHAT(attack=ATTACK, standard=one) for one in (standard, lambda x: standard(x) * 3)]
    perturbed = objectives[0].perturb(model, images, labels, ImageRandom(0))
    assert torch.equal(*(one.loss(model, images, perturbed, labels)[0] for one in objectives))


def test_the_recipe_trains_with_a_file_of_weights_that_stay_as_they_are(tmp_path):
    recipe = recipes.load("digits-helper-hat")
    assert (recipe.objective.beta, recipe.objective.gamma, recipe.objective.reach) == (2.5, 0.5, 2.0)
    torch.manual_seed(0)
    save_weights(create_model("small_cnn_8"), tmp_path / "standard.safetensors")
    recipe = recipe.replace(
        **{
            "epochs": 1, "batch_size": 700, "attack.steps": 2, "evaluation.steps": 1,
            "objective.standard_weights": str(tmp_path / "standard.safetensors"),
        }
    )  # fmt: skip
    report = train(recipe, tmp_path / "run", device="cpu")
    assert report.history[-1]["update"] == 2
    assert 0 <= report.history[-1]["helper_accuracy"] <= 1

    context = Context(
        attack=build_attack(recipe.attack), batch_norm="eval", precision=None, shape=(1, 8, 8), classes=10
    )
    standard = recipe.objective.build(context).standard
    torch.manual_seed(0)
    for one, other in zip(standard.parameters(), create_model("small_cnn_8").parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("setting", "value"), [("standard_weights", "nowhere.safetensors"), ("standard_model", "resnet1")]
)
def test_a_standard_model_that_is_not_there(setting, value, tmp_path):
    save_weights(create_model("small_cnn_8"), tmp_path / "standard.safetensors")
    recipe = recipes.load("digits-helper-hat").replace(
        **{"objective.standard_weights": str(tmp_path / "standard.safetensors"), f"objective.{setting}": value}
    )
    with pytest.raises(SetupError, match=r"the standard model of helper_hat cannot be loaded: .*; train it with a"):
        train(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "config.yaml").exists()
