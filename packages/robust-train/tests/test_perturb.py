"""The mode of the model during an attack, and that nothing is left behind."""

import pytest
import torch
from robust_attacks import FGSM, L2, PGD, ImageRandom, Linf
from robust_train import recipes
from robust_train.perturb import attack_mode, build_attack, build_evaluation_attack, perturb
from torch import nn


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )
    with torch.no_grad():
        network(torch.rand(32, 1, 4, 4))  # running statistics that differ from a batch's
    return network.train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 1, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)


def buffers(model):
    return {name: value.clone() for name, value in model.named_buffers()}


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_buffers_stay_bit_equal(batch_norm, model, batch):
    before = buffers(model)
    perturb(PGD(threat=Linf(eps=0.1), steps=3), model, *batch, ImageRandom(0), batch_norm=batch_norm)
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_moving_buffers_equal_as_many_plain_passes(model, batch):
    """Three steps are three forward passes in training mode on the iterates of the attack."""
    seen = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    perturb(PGD(threat=Linf(eps=0.1), steps=3), model, *batch, ImageRandom(0), batch_norm="train_moving")
    hook.remove()
    moved = buffers(model)
    model.load_state_dict(start)
    for images in seen:
        model(images)
    assert len(seen) == 3
    assert moved["1.num_batches_tracked"] == start["1.num_batches_tracked"] + 3
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, moved[name], rtol=1e-6, atol=1e-7)


def test_what_the_attack_sees_in_each_mode(model, batch):
    images, labels = batch
    outputs = {}

    def look(network, candidates, labels, *, random=None):
        torch.manual_seed(0)
        outputs["now"] = network(candidates).detach()
        return candidates

    perturb(look, model, images, labels, batch_norm="eval")
    expected = model.eval()(images).detach()
    assert torch.equal(outputs["now"], expected)
    model.train()
    for batch_norm in ("train", "train_moving"):
        perturb(look, model, images, labels, batch_norm=batch_norm)
        torch.manual_seed(0)
        assert torch.equal(outputs["now"], model(images).detach())


@pytest.mark.parametrize("batch_norm", ["eval", "train", "train_moving"])
def test_modes_gradients_images_and_random_state_are_left_alone(batch_norm, model, batch):
    images, labels = batch
    model[1].eval()  # a batch norm that somebody froze stays frozen
    before = [module.training for module in model.modules()]
    copy, state = images.clone(), torch.get_rng_state()
    adversarial = perturb(
        FGSM(threat=Linf(eps=0.1), random_start=True), model, images, labels, ImageRandom(3), batch_norm=batch_norm
    )
    assert [module.training for module in model.modules()] == before
    assert all(module.track_running_stats for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert not adversarial.requires_grad
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@pytest.mark.parametrize("batch_norm", ["eval", "train", "train_moving"])
def test_the_mode_comes_back_after_an_error(batch_norm, model):
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), attack_mode(model, batch_norm):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before
    assert model[1].track_running_stats


def test_the_wrapper_of_distributed_training_is_not_called(model, batch):
    """The attack gets a function, so no hook of a wrapper can see a backward pass on weights."""

    def look(network, candidates, labels, *, random=None):
        assert not isinstance(network, nn.Module)
        return candidates

    perturb(look, model, *batch)


def test_mixed_precision_reaches_the_passes_of_the_attack_and_gives_float_logits(model, batch):
    seen = []
    hook = model[5].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))

    def look(network, candidates, labels, *, random=None):
        seen.append(network(candidates).dtype)
        return candidates

    perturb(look, model, *batch, precision=torch.bfloat16)
    hook.remove()
    assert seen == [torch.bfloat16, torch.float32]


def test_settings_become_attacks_with_steps_in_multiples_of_eps():
    recipe = recipes.load("digits-fgsm-rs")
    assert build_attack(recipe.attack) == FGSM(threat=Linf(eps=0.15), step_size=1.25 * 0.15, random_start=True)
    pgd = recipes.load("digits-pgd").replace(**{"attack.norm": "L2", "attack.eps": 0.5})
    assert build_attack(pgd.attack) == PGD(threat=L2(eps=0.5), steps=7, step_size=0.125, random_start=True)


def test_the_evaluation_takes_the_threat_of_the_training_unless_it_has_its_own():
    recipe = recipes.load("digits-fgsm-rs").replace(**{"attack.eps": 0.1})
    attack = build_evaluation_attack(recipe.evaluation, recipe.attack)
    assert attack == PGD(threat=Linf(eps=0.1), steps=10, step_size=0.025, restarts=1)
    own = recipe.replace(**{"evaluation.norm": "L2", "evaluation.eps": 1, "evaluation.restarts": 2})
    attack = build_evaluation_attack(own.evaluation, own.attack)
    assert attack == PGD(threat=L2(eps=1.0), steps=10, step_size=0.25, restarts=2)
    with pytest.raises(ValueError, match=r"evaluation\.eps must be given"):
        build_evaluation_attack(recipe.evaluation, None)
