import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks.discrete import Discrete
from torch import nn

SHAPE = (2, 4, 4)


def same(images):
    return images


def coarse(images):
    return (images * 8).round() / 8


def batch(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 + 0.6 * torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (count,), generator=generator)


def test_without_a_start_it_takes_from_a_linear_model_all_that_the_ball_allows(linear):
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images, labels = batch()
    found = Discrete(quantiser=same, start_probability=0)(model, images, labels * 0 + 1)
    fall = model.value(images) - model.value(found)
    torch.testing.assert_close(fall, (0.1 * model.weight.norm()).expand(12), rtol=1e-9, atol=0)


@pytest.mark.parametrize("step_size", [None, 0.03, 0.5])
def test_it_is_start_plus_step_projected_then_quantised(step_size, rows):
    """The gradient is that at Q(x); Q is flat nearly everywhere, so a gradient through it would be zero."""
    model = rows(SHAPE)
    images, labels = batch()
    random = ImageRandom(3, torch.arange(12))
    found = Discrete(quantiser=coarse, step_size=step_size)(model, images, labels, random=random)
    leaf = coarse(images).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    noise = random.normal("discrete/start", SHAPE).double()
    for i in range(12):
        start = 0.1 * noise[i] / noise[i].norm() if random.uniform("discrete/coin", (1,))[i] < 0.8 else noise[i] * 0
        change = start + (step_size or 0.1) * gradient[i] / gradient[i].norm()
        change = change * min(1.0, 0.1 / float(change.norm()))
        expected = coarse((coarse(images[i]) + change).clamp(0, 1))
        assert torch.equal(found[i], expected)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.8, 1.0])
def test_the_share_of_images_that_start_from_the_sphere(probability, linear):
    """A step of no weight on a linear model: what differs from the plain step started elsewhere."""
    model = linear(torch.ones(SHAPE))
    images = torch.full((2000, *SHAPE), 0.5, dtype=torch.float64)
    labels = torch.ones(2000, dtype=torch.int64)
    attack = Discrete(quantiser=same, start_probability=probability, step_size=1e-9)
    lengths = (attack(model, images, labels, random=ImageRandom(0)) - images).flatten(1).norm(dim=1)
    started = lengths > 0.05
    assert abs(float(started.double().mean()) - probability) < 0.05
    torch.testing.assert_close(lengths[started], torch.full_like(lengths[started], 0.1), rtol=1e-6, atol=0)
    assert (lengths[~started] < 1e-8).all()


def test_every_batch_size_and_order_gives_the_same_images(rows):
    images, labels = batch(24)
    attack, random, model = Discrete(quantiser=coarse), ImageRandom(7, torch.arange(24) * 9), rows(SHAPE)
    whole = attack(model, images, labels, random=random)
    for size in (1, 5):
        parts = [attack(model, images[p], labels[p], random=random[p]) for p in torch.arange(24).split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])


def test_it_costs_one_pass_each_way_and_two_of_the_quantiser(rows):
    model, seen = rows(SHAPE), []

    def counted(images):
        seen.append("model")
        images.register_hook(lambda _: seen.append("back"))
        return model(images)

    def quantiser(images):
        assert not torch.is_grad_enabled()
        seen.append("quantiser")
        return images

    Discrete(quantiser=quantiser)(counted, *batch())
    assert seen == ["quantiser", "model", "back", "quantiser"]


class Autoencoder(nn.Module):
    """Batch norm in training mode, noise and parameters: all of which must stay."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Conv2d(4, 2, 1)
        )

    def forward(self, images):
        return self.layers(images).sigmoid()


def test_nothing_moves_in_model_or_quantiser():
    torch.manual_seed(0)
    quantiser = Autoencoder().train()
    model = nn.Sequential(nn.Conv2d(2, 3, 4), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten()).train()
    images, labels = batch()
    images = images.float()
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (quantiser, model)]
    state, given = torch.get_rng_state(), images.clone()
    found = [Discrete(quantiser=quantiser)(model, images, labels, random=ImageRandom(0)) for _ in range(2)]
    assert torch.equal(*found)
    assert not found[0].requires_grad
    for one, kept in zip((quantiser, model), before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in one.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in one.parameters())
        assert one.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, given)
    with torch.inference_mode():
        assert torch.equal(
            Discrete(quantiser=quantiser)(model, images * 1, labels * 1, random=ImageRandom(0)), found[0]
        )


def test_what_comes_back_is_new_even_where_the_quantiser_keeps_its_tensors(rows):
    kept = torch.full((12, *SHAPE), 0.25, dtype=torch.float64)
    found = Discrete(quantiser=lambda _: kept)(rows(SHAPE), *batch())
    assert torch.equal(found, kept)
    found.zero_()
    assert (kept == 0.25).all()


def test_soft_labels_that_are_hard_give_what_hard_labels_give(rows):
    images, labels = batch()
    soft = nn.functional.one_hot(labels, 3).double()
    attack, random = Discrete(quantiser=same, start_probability=0), ImageRandom(0)
    hard = attack(rows(SHAPE), images, labels, random=random)
    assert torch.equal(attack(rows(SHAPE), images, soft, random=random), hard)
    mixed = (soft + 2 * soft.roll(1, dims=1)) / 3
    found, model = attack(rows(SHAPE), images, mixed, random=random), rows(SHAPE)
    assert (-(mixed * model(found).log_softmax(1)).sum(1) > -(mixed * model(images).log_softmax(1)).sum(1)).all()


def test_a_targeted_loss_takes_its_step_for_every_image(rows):
    model = rows(SHAPE)
    images, targets = batch(30)
    assert 0 < int((model(images).argmax(dim=1) == targets).sum()) < 30
    found = Discrete(quantiser=same, start_probability=0, loss=targeted(cross_entropy))(model, images, targets)
    assert (cross_entropy(model(found), targets) < cross_entropy(model(images), targets)).all()


@given(seed=st.integers(0, 2**32), eps=st.floats(0, 9), double=st.booleans(), last=st.booleans())
def test_the_result_is_in_the_box(rows, seed, eps, double, last):
    images, labels = batch(2, seed)
    images = images if double else images.float()
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    step = None if eps else 0.1
    found = Discrete(quantiser=coarse, eps=eps, step_size=step)(rows(SHAPE), images, labels)
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(found, coarse(found))


def test_flat_and_broken_models_are_pointed_out():
    with pytest.warns(RuntimeWarning, match="in a differentiable way") as caught:
        Discrete(quantiser=same)(lambda x: x.detach()[:, 0, 0, :3], *batch())
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="12 of 12 images were not finite"):
        found = Discrete(quantiser=same)(lambda x: x[:, 0, 0, :3] / 0, *batch())
    assert found.isfinite().all()


def test_no_images_make_no_images(rows):
    assert Discrete(quantiser=same)(rows(SHAPE), *batch(0)).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("quantiser", "error", "message"),
    [
        (lambda x: 2 * x - 1, ValueError, r"images in \[0, 1\], got \[-0.\d+, 0.\d+\]: map its range into the box"),
        (lambda x: x * torch.nan, ValueError, r"got \[nan, nan\]"),
        (lambda x: x[:, :1], ValueError, r"same shape and device, it turned \(12, 2, 4, 4\) on cpu into \(12, 1"),
        (lambda x: (x, x), TypeError, "must return float images as a tensor, it returned a tuple"),
        (lambda x: x.round().long(), TypeError, "it returned torch.int64"),
    ],
)  # fmt: skip
def test_what_a_quantiser_may_not_return(quantiser, error, message, rows):
    with pytest.raises(error, match=message):
        Discrete(quantiser=quantiser)(rows(SHAPE), *batch())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantiser": "vqgan"}, TypeError, "quantiser must be a callable that takes images and .*'vqgan'"),
        ({"quantiser": Autoencoder}, TypeError, "quantiser must be a callable .*got <class"),
        ({"eps": -0.1}, ValueError, "eps must be at least 0, and finite, got -0.1"),
        ({"eps": None}, TypeError, "eps must be a number, got None"),
        ({"eps": float("inf")}, ValueError, "eps must be at least 0, and finite, got inf"),
        ({"step_size": 0}, ValueError, "step_size must be positive and finite, or None for eps"),
        ({"start_probability": 1.5}, ValueError, "start_probability must be .*at most 1, and finite, got 1.5"),
        ({"start_probability": "0.8"}, TypeError, "start_probability must be a number"),
        ({"loss": None}, TypeError, "loss must be a function"),
    ],
)  # fmt: skip
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"Discrete: {message}"):
        Discrete(**({"quantiser": same} | options))


def test_it_is_a_value():
    assert Discrete(quantiser=same) == Discrete(quantiser=same)
    assert hash(Discrete(quantiser=same)) != hash(Discrete(quantiser=same, loss=margin))
