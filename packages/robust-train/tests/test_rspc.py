"""RSPC against its formulas, written with plain operations in float64."""

import io
import os
import signal

import pytest
import torch
from robust_attacks import ImageRandom
from robust_models import Normalize, create_model
from robust_train import Interrupted, SetupError, recipes, train
from robust_train.objectives import RSPC
from robust_train.objectives.mask_network import LossWeights, MaskNetwork
from robust_train.recipes import RecipeError
from robust_train.seeds import derive
from torch import nn
from torch.nn import functional

MEAN, STD = 0.375, 0.25
RANDOM = ImageRandom(5, torch.arange(6))


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        Normalize([MEAN], [STD]), nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    return network.double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


def objective(**options):
    """Patches of 2 pixels, and after the first and the second tanh the blocks end."""
    return RSPC(**{"shape": (1, 8, 8), "patch": 2, "share": 0.3, "weight": 0.5, "blocks": "2|4", **options})


def weights_of(rspc):
    return [value.detach().clone() for value in rspc._network.parameters()]


def first_weights():
    generator = torch.Generator().manual_seed(derive(5, "rspc"))
    convolution = torch.empty(1, 1, 2, 2).uniform_(-0.5, 0.5, generator=generator)  # 4 inputs
    linear = torch.empty(16, 16).uniform_(-0.25, 0.25, generator=generator)  # 16 inputs
    return [convolution.double(), linear.double()]


def scores_of(weights, images):
    """One number per 2 x 2 patch, GELU, and a matrix over all 16 patches."""
    patches = images.reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4)
    numbers = patches @ weights[0].flatten()
    return (numbers * 0.5 * (1 + torch.erf(numbers / 2**0.5))) @ weights[1].T


def losses_by_formula(model, kept, images, noise, wanted, weight):
    """With masks kept (N, 16)."""
    mask = kept.reshape(-1, 1, 4, 1, 4, 1).expand(-1, 1, 4, 2, 4, 2).reshape(-1, 1, 8, 8)
    hidden = (mask * images + (1 - mask) * noise).clamp(0, 1)

    def blocks(x):
        first = torch.conv2d((x - MEAN) / STD, model[1].weight, model[1].bias, padding=1).tanh()
        second = torch.conv2d(first, model[3].weight, model[3].bias).tanh()
        return first, second

    one, other = blocks(hidden), blocks(images)
    alignment = sum((a - b).square().mean((1, 2, 3)) for a, b in zip(one, other, strict=True)) / (2 + 1e-4)
    logits = other[1].flatten(1) @ model[6].weight.T + model[6].bias
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    return -(wanted * log_p).sum(1) + weight * alignment


@pytest.mark.parametrize("c_gradient", ["normalise", "raw"])
@pytest.mark.parametrize("noise_space", ["normalised", "pixel"])
@pytest.mark.parametrize("weight", [0.5, 3e4], ids=["", "limits"])
def test_three_updates_equal_the_formulas(c_gradient, noise_space, weight, model, batch, monkeypatch):
    """Losses, gradients of the model and weights of C; with the large weight, all limits on gradients are active."""
    images, labels = batch
    if weight > 1:
        monkeypatch.setattr(RSPC, "NORM", 0.01)
    wanted = torch.eye(4, dtype=torch.float64)[labels]
    if noise_space == "pixel":
        labels = wanted = 0.7 * wanted + 0.3 * wanted.roll(1, 0)
    rspc = objective(c_gradient=c_gradient, noise_space=noise_space, weight=weight)
    noise = RANDOM.uniform("rspc/noise", (1, 8, 8)).double()
    noise = MEAN + STD * noise if noise_space == "normalised" else noise
    weights, velocity, limits = first_weights(), [0, 0], set()
    for update in range(3):
        perturbed = rspc.perturb(model, images, labels, RANDOM)
        torch.testing.assert_close(perturbed, noise, rtol=0, atol=1e-15)
        losses, metrics = rspc.losses(model, images, perturbed, labels)
        model.zero_grad()
        (1024 * losses.mean()).backward()  # a loss scale changes nothing for C
        rspc.learn([(images, perturbed, labels)])

        weights = [value.requires_grad_() for value in weights]
        scores = scores_of(weights, images)
        threshold = torch.quantile(scores.detach(), 0.3, dim=1, keepdim=True)
        kept = (scores.detach() > threshold).double().requires_grad_()
        assert (kept == 0).sum(1).tolist() == [5] * 6  # floor(0.3 * 15) + 1
        expected = losses_by_formula(model, kept, images, perturbed, wanted, weight)
        inner = torch.autograd.grad(expected.mean(), [*model.parameters(), kept])
        torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)
        for parameter, gradient in zip(model.parameters(), inner, strict=False):
            torch.testing.assert_close(parameter.grad / 1024, gradient, rtol=1e-8, atol=1e-11)
        assert metrics["accuracy"].item() <= 6

        gradients = torch.autograd.grad(scores, weights, inner[-1].clamp(-1, 1))
        norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
        limits |= {bool(inner[-1].abs().max() > 1), bool(norm > RSPC.NORM)}
        factor = RSPC.NORM / norm if c_gradient == "normalise" else min(1, RSPC.NORM / norm)
        descent = [-factor * g + 0.05 * w for g, w in zip(gradients, weights, strict=True)]
        velocity = [0.9 * v + d if update else d for v, d in zip(velocity, descent, strict=True)]
        weights = [(w - 1e-4 * (d + 0.9 * v)).detach() for w, d, v in zip(weights, descent, velocity, strict=True)]
        for value, by_formula in zip(weights_of(rspc), weights, strict=True):
            torch.testing.assert_close(value, by_formula, rtol=1e-10, atol=1e-13)
    assert limits == {weight > 1}


def test_the_mask_network_climbs(model, batch):
    """To first order its scores move to where the loss is higher."""
    images, labels = batch
    rspc = objective(c_weight_decay=0.0)
    perturbed = rspc.perturb(model, images, labels, RANDOM)
    rspc.losses(model, images, perturbed, labels)[0].mean().backward()
    before = scores_of(weights_of(rspc), images)
    rspc.learn([(images, perturbed, labels)])
    moved = scores_of(weights_of(rspc), images) - before

    threshold = torch.quantile(before, 0.3, dim=1, keepdim=True)
    kept = (before > threshold).double().requires_grad_()
    wanted = torch.eye(4, dtype=torch.float64)[labels]
    losses = losses_by_formula(model, kept, images, perturbed, wanted, 0.5)
    (slope,) = torch.autograd.grad(losses.mean(), kept)
    assert (slope * moved).sum() > 0.01 * slope.norm() * moved.norm()


def test_parts_and_second_passes_give_the_mean_gradient(model, batch):
    """Two parts of a batch, or the same pass twice, move C as the whole batch does."""
    images, labels = batch

    def moved(*slices):
        rspc = objective(c_gradient="raw")
        made = [(images[s], rspc.perturb(model, images[s], labels[s], RANDOM[s]), labels[s]) for s in slices]
        for x, noise, y in made:
            (rspc.losses(model, x, noise, y)[0].sum() / 6).backward()
        rspc.learn(made)
        return weights_of(rspc)

    whole = moved(slice(0, 6))
    for parts in ((slice(0, 4), slice(4, 6)), (slice(0, 6), slice(0, 6))):
        for one, other in zip(moved(*parts), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("side", "patch", "count"), [(224, 16, 20), (32, 4, 7), (8, 2, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_number_of_hidden_patches_is_exact(side, patch, count, ties):
    """20 of 196 and 7 of 64 with rho = 0.1, also where all scores are equal; whole patches."""
    network = MaskNetwork((3, side, side), patch=patch)
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if ties:
            network.scores.weight.zero_()
        mask = network(images)
        patches = functional.avg_pool2d(mask, patch)
    assert mask.shape == (3, 1, side, side)
    assert ((patches == 0) | (patches == 1)).all()
    assert (patches == 0).sum((1, 2, 3)).tolist() == [count] * 3
    if ties:
        assert (patches[:, 0].flatten(1)[:, :count] == 0).all()


def test_a_loss_that_weighs_nothing_has_no_gradient():
    weights = LossWeights()
    losses = torch.ones(2, requires_grad=True) * 1.0
    weights.watch(losses)
    (losses * torch.tensor([0.0, 0.25])).sum().backward()
    limited = weights.limited(torch.tensor([[0.0, 0.0], [0.25, 5.0]]))
    assert limited.tolist() == [[0, 0], [1, 2]]  # of the sum: 1 and 20, of which at most 2


def test_a_gradient_that_is_no_number_moves_nothing_but_the_decay(model, batch):
    images, labels = batch
    rspc = objective()
    noise = rspc.perturb(model, images, labels, RANDOM)
    before = weights_of(rspc)
    (rspc.losses(model, images, noise, labels)[0].mean() * torch.nan).backward()
    rspc.learn([(images, noise, labels)])
    for one, other in zip(weights_of(rspc), before, strict=True):
        torch.testing.assert_close(one, other.double() * (1 - 1e-4 * 1.9 * 0.05), rtol=1e-9, atol=0)


def test_blocks_of_a_vision_transformer_are_found_and_one_pass_is_made():
    vit = create_model("vit_tiny_patch16_224", img_size=32, num_classes=4)
    rspc = RSPC(shape=(3, 32, 32), share=0.1)
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 3])
    seen, blocks = [], []
    vit.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    for block in vit.model.blocks:
        block.register_forward_hook(lambda _, __, output: blocks.append(output))
    noise = rspc.perturb(vit, images, labels, ImageRandom(0, torch.arange(2)))
    losses, metrics = rspc.losses(vit, images, noise, labels)
    losses.mean().backward()
    assert (seen, len(blocks)) == ([4], 12)
    expected = sum((b[:2] - b[2:]).square().mean() for b in blocks) / (12 + 1e-4)
    torch.testing.assert_close(metrics["alignment"] / 2, expected.detach())
    assert rspc._network.scores.weight.grad.abs().sum() > 0


def test_goes_on_from_its_state_bit_for_bit(model, batch):
    images, labels = batch

    def go(rspc, updates):
        for update in updates:
            noise = rspc.perturb(model, images, labels, ImageRandom(update, torch.arange(6)))
            rspc.losses(model, images, noise, labels)[0].mean().backward()
            rspc.learn([(images, noise, labels)])
        return weights_of(rspc)

    expected = go(objective(), range(4))
    first, second = objective(), objective()
    go(first, range(2))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second.load_state_dict(torch.load(stream, weights_only=True))
    for one, other in zip(go(second, range(2, 4)), expected, strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path, monkeypatch):
    changes = {"epochs": 2, "batch_size": 640, "checkpoint_every": 1, "evaluation.steps": 1}
    recipe = recipes.load("digits-rspc").replace(**changes)
    expected = train(recipe, tmp_path / "unbroken", device="cpu").model.state_dict()
    learn = RSPC.learn

    def interrupted(self, parts):
        learn(self, parts)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RSPC, "learn", interrupted)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "broken", device="cpu")
    monkeypatch.setattr(RSPC, "learn", learn)
    report = train(recipe, tmp_path / "broken", device="cpu")
    assert report.resumed == 3
    for name, value in report.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_recipe_has_the_published_settings():
    settings = recipes.load("digits-rspc").objective
    assert (settings.share, settings.weight, settings.c_lr, settings.c_weight_decay) == (0.1, 5e-3, 1e-4, 0.05)
    assert (settings.noise_space, settings.c_gradient) == ("normalised", "normalise")


def test_patches_must_fit():
    with pytest.raises(SetupError, match="patches of 16 pixels must divide both sides of the images, got 8 x 8"):
        RSPC(shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective.share": 1.0}, r"objective.share must lie in \[0, 1\), got 1"),
        ({"objective.patch": 0}, "objective.patch must be positive, got 0"),
        ({"objective.weight": -1.0}, "objective.weight must not be negative"),
        ({"objective.c_gradient": "clip"}, "objective.c_gradient must be one of normalise, raw"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(RecipeError, match=message):
        recipes.load("digits-rspc").replace(**change)
