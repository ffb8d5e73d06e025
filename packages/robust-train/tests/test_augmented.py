"""Objectives on augmented images: AugMix with consistency, APR-SP, PRIME and Gaussian noise."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_augs import PRIME, APRPair, APRSingle, AugMix, GaussianNoise, RandomColor, RandomFilter
from robust_train import recipes, train
from robust_train.objectives import APRSP, GNT, AugMixJSD, PRIMETraining
from robust_train.recipes import RecipeError
from robust_train.seeds import derive
from torch import nn

SEED, FIRST = 5, 3  # the images are those from number 3 on of a batch
COLORS = PRIME(primitives=(RandomColor(), RandomFilter()))

OBJECTIVES = {
    "augmix": AugMixJSD(augmix=AugMix(severity=2.0, quantize=False), consistency=7.0),
    "apr": APRSP(pair=APRPair(probability=0.5)),
    "prime": PRIMETraining(prime=COLORS),
    "prime-jsd": PRIMETraining(prime=COLORS, consistency=12.0),
    "gnt": GNT(),
}
WEIGHTS = {"augmix": 7.0, "prime-jsd": 12.0}


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 4)).double()
    with torch.no_grad():
        network(torch.rand(16, 1, 8, 8, dtype=torch.float64))
    return network.eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


@pytest.fixture
def random():
    return ImageRandom(SEED, FIRST + torch.arange(6))


def made_by_formula(name, images):
    """The augmentations once more, with the one generator that a batch has."""
    generator = torch.Generator().manual_seed(derive(SEED, "augmentation", FIRST))
    match name:
        case "augmix":
            augmix = AugMix(severity=2.0, quantize=False)
            return torch.stack([images, *(augmix(images, generator=generator) for _ in range(2))], 1)
        case "prime-jsd":
            return torch.stack([images, *(COLORS(images, generator=generator) for _ in range(2))], 1)
        case "prime":
            return COLORS(images, generator=generator)
        case "gnt":
            return GaussianNoise(sigma=0.5, share=0.5)(images, generator=generator)
        case "apr":
            single = APRSingle(severity=3.0)(images, generator=generator)
            return torch.stack([single, APRPair(probability=0.5)(single, generator=generator)], 1)


def p_of(model, x):
    convolution, norm, linear = model[0], model[1], model[4]
    x = torch.conv2d(x, convolution.weight, convolution.bias)
    shape = (1, 3, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    x = (x * norm.weight.view(shape) + norm.bias.view(shape)).tanh()
    logits = x.flatten(1) @ linear.weight.T + linear.bias
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def losses_by_formula(name, model, made, soft):
    def cross_entropy(p):
        return -(soft * p.log()).sum(1)

    if name in ("prime", "gnt"):
        return cross_entropy(p_of(model, made))
    views = [p_of(model, made[:, view]) for view in range(made.shape[1])]
    if name == "apr":
        return cross_entropy(views[0]) + cross_entropy(views[1])
    middle = (views[0] + views[1] + views[2]) / 3
    divergence = sum((p * (p / middle).log()).sum(1) for p in views) / 3
    assert divergence.max() > 1e-6
    return cross_entropy(views[0]) + WEIGHTS[name] * divergence


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_the_formula(name, soft, model, batch, random):
    images, labels = batch
    probabilities = torch.eye(4, dtype=torch.float64)[labels]
    if soft:
        labels = probabilities = 0.7 * probabilities + 0.3 * probabilities.roll(1, 0)
    expected_images = made_by_formula(name, images)
    perturbed = OBJECTIVES[name].perturb(model, images, labels, random)
    torch.testing.assert_close(perturbed, expected_images, rtol=0, atol=0)

    expected = losses_by_formula(name, model, expected_images, probabilities)
    gradients = torch.autograd.grad(expected.mean(), list(model.parameters()))
    losses, metrics = OBJECTIVES[name].losses(model, images, perturbed, labels)
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=1e-13)
    losses.mean().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-13)

    first = perturbed if perturbed.ndim == 4 else perturbed[:, 0]
    right = (p_of(model, first).argmax(1) == probabilities.argmax(1)).sum()
    assert next(value for key, value in metrics.items() if "accuracy" in key) == right
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_runs_all_views_in_one_pass(name, model, batch, random):
    images, labels = batch
    perturbed = OBJECTIVES[name].perturb(model, images, labels, random)
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    model.train()
    OBJECTIVES[name].losses(model, images, perturbed, labels)
    assert seen == [perturbed.numel() // 64]
    assert model[1].num_batches_tracked == 2  # once in the fixture, once here


@pytest.mark.parametrize("name", OBJECTIVES)
def test_draws_are_a_function_of_seed_and_place_in_the_batch(name, model, batch, random):
    images, labels = batch
    state = torch.get_rng_state()
    first, again, other_seed, other_part = (
        OBJECTIVES[name].perturb(model, images, labels, r)
        for r in (random, random, ImageRandom(SEED + 1, random.ids), ImageRandom(SEED, torch.arange(6)))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_part)
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_predictions_have_no_divergence(batch):
    """With a weight of 0, or a model that is blind to the views, AugMix training is plain training."""
    images, labels = batch
    blind = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    nn.init.zeros_(blind[1].weight)
    views = OBJECTIVES["augmix"].perturb(blind, images, labels, ImageRandom(0))
    losses, metrics = OBJECTIVES["augmix"].losses(blind, images, views, labels)
    torch.testing.assert_close(losses, nn.functional.cross_entropy(blind(images), labels, reduction="none"))
    assert metrics["divergence"].abs() < 1e-12
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    losses, _ = AugMixJSD(consistency=0.0).losses(other, images, views, labels)
    torch.testing.assert_close(losses, nn.functional.cross_entropy(other(images), labels, reduction="none"))


def test_half_of_the_images_are_noisy(batch):
    images, labels = batch
    noisy = GNT(noise=GaussianNoise(sigma=0.1)).perturb(nn.Identity(), images, labels, ImageRandom(0))
    assert (noisy != images).flatten(1).any(1).sum() == 3


def test_losses_of_half_precision_logits_are_float32(batch):
    images, labels = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    views = OBJECTIVES["augmix"].perturb(model, images, labels, ImageRandom(0))
    losses, _ = OBJECTIVES["augmix"].losses(lambda x: model(x).half(), images, views, labels)
    assert losses.dtype == torch.float32


RECIPES = {
    "digits-augmix-jsd": AugMixJSD(augmix=AugMix.cifar),
    "digits-apr-sp": APRSP(),
    "digits-prime": PRIMETraining(prime=PRIME.cifar, consistency=12.0),
    "digits-gnt": GNT(noise=GaussianNoise(sigma=(0.5,))),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_the_published_settings_and_trains(name, tmp_path):
    recipe = recipes.load(name)
    assert recipe.objective.build(None) == RECIPES[name]
    report = train(recipe.replace(epochs=1, batch_size=640, **{"evaluation.steps": 1}), tmp_path, device="cpu")
    assert report.history[-1]["update"] == 2
    assert 0 < report.history[-1]["loss"] < 100


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("digits-augmix-jsd", {"objective.severity": 11.0}, "objective.severity must"),
        ("digits-augmix-jsd", {"objective.consistency": -1.0}, "objective.consistency must not be negative, got -1"),
        ("digits-apr-sp", {"objective.probability": 1.5}, r"objective.probability must lie in \[0, 1\], got 1.5"),
        ("digits-prime", {"objective.width": 0}, "objective.width must"),
        ("digits-gnt", {"objective.sigma": [-0.1]}, "objective.sigma must be a finite number"),
        ("digits-gnt", {"objective.sigma": []}, "objective.sigma must be a finite number"),
    ],
)
def test_settings_out_of_range(name, change, message):
    with pytest.raises(RecipeError, match=message):
        recipes.load(name).replace(**change)
