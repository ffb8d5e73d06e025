"""DDN against closed forms, a slow program of its own, and laws."""

import math
import warnings

import pytest
import torch
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks.closest import distance
from robust_attacks.ddn import DDN
from torch import nn

SHAPE = (2, 4, 4)


def slow(model, image, label, steps, target=False, gamma=0.05, levels=256):
    """Algorithm 1 for one image in float64, with the guards of the specification; the least norm, or inf."""
    change, radius, best = torch.zeros_like(image), 1.0, math.inf
    most = float(torch.maximum(image, 1 - image).norm())
    for step in range(steps):
        leaf = (image + change).requires_grad_()
        logits = model(leaf[None])[0]
        won = (int(logits.argmax()) == label) == target
        if won:
            best = min(best, float(change.norm()))
        loss = (-1 if target else 1) * (logits.logsumexp(dim=0) - logits[label])
        (gradient,) = torch.autograd.grad(loss, leaf)
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        change = change + alpha * gradient / gradient.norm()
        radius = min(radius * (1 - gamma if won else 1 + gamma), most)
        point = (image + radius * change / change.norm()).clamp(0, 1)
        change = (point if levels is None else (point * (levels - 1)).round() / (levels - 1)) - image
    return best


@pytest.mark.parametrize("levels", [None, 256])
@pytest.mark.parametrize("target", [False, True], ids=["untargeted", "targeted"])
def test_it_is_what_a_slow_program_finds(levels, target, rows, batch):
    model, images = rows(SHAPE), batch(4)[0].double()
    labels = model(images).argmax(dim=1)
    labels = (labels + 1) % 3 if target else labels
    attack = DDN(steps=50, levels=levels, loss=targeted(cross_entropy) if target else cross_entropy)
    closest = attack.minimum(model, images, labels, random=ImageRandom(0))
    pairs = zip(images, labels.tolist(), strict=True)
    expected = torch.tensor([slow(model, *pair, 50, target, levels=levels) for pair in pairs], dtype=torch.float64)
    assert expected.isfinite().any()
    torch.testing.assert_close(closest.distances, expected, rtol=1e-9, atol=0)


def test_it_comes_near_the_boundary_of_a_linear_model(linear, batch):
    images = batch(20)[0] * 0.4 + 0.3
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), bias=-0.3)
    labels = (model.value(images) > 0).long()
    closest = DDN(levels=None).minimum(model, images, labels, random=ImageRandom(0))
    least = (model.value(images).abs() / model.weight.norm()).detach()
    assert (closest.distances >= least).all()
    assert (closest.distances <= 1.02 * least).all()
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(closest.distances, distance("L2", images, closest.adversarial), rtol=0, atol=0)


def test_it_comes_near_a_sphere(batch):
    """f = r^2 - |x - c|^2: the least L2 distance is r - |x - c|."""

    def model(images):
        value = 1.0 - (images.double() - 0.5).square().sum(dim=(1, 2, 3))
        return torch.stack((value, torch.zeros_like(value)), dim=1)

    images = 0.5 + 0.2 * (batch(10)[0] - 0.5)
    closest = DDN(levels=None, steps=200).minimum(model, images, torch.zeros(10, dtype=torch.int64))
    least = 1 - (images.double() - 0.5).square().sum(dim=(1, 2, 3)).sqrt()
    assert (closest.distances >= least).all()
    assert (closest.distances <= 1.02 * least).all()


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_results_have_the_levels(levels, rows, batch):
    images, _ = batch(12)
    model = rows(SHAPE)
    closest = DDN(levels=levels, steps=60).minimum(model, images, model(images).argmax(dim=1))
    assert int(closest.found.sum()) >= (2 if levels == 2 else 12)  # black and white is much to ask for
    steps = closest.adversarial[closest.found] * (levels - 1)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=2e-5)


def test_what_is_pushed_by_the_second_verdict_has_the_levels_too():
    """A model that asks for more from its 41st call on, which is the second verdict."""
    calls = []

    def model(images):
        calls.append(len(images))
        bound = 24.0 if len(calls) <= 40 else 24.4
        value = images.double().sum(dim=(1, 2, 3)) - bound
        return torch.stack((torch.zeros_like(value), value), dim=1)

    closest = DDN(steps=40).minimum(model, torch.full((1, *SHAPE), 0.5), torch.tensor([0]), random=ImageRandom(0))
    assert len(calls) > 42  # pushed
    assert closest.found.all()
    assert float(closest.adversarial.double().sum()) > 24.4
    torch.testing.assert_close(closest.adversarial * 255, (closest.adversarial * 255).round(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("steps", [1, 7])
def test_its_cost(steps, rows, batch, counting):
    model = counting(rows(SHAPE))
    images, _ = batch(5)
    DDN(steps=steps)(model, images, model.model(images).argmax(dim=1))
    assert model.forwards == [5] * (steps + 1)
    assert model.backwards == [5] * (steps - 1)


def test_images_that_are_misclassified_stay_as_they_are(rows, batch):
    images, labels = batch(30)
    model = rows(SHAPE)
    wrong = model(images).argmax(dim=1) != labels
    closest = DDN(steps=40).minimum(model, images, labels)
    assert 0 < int(wrong.sum()) < 30
    assert torch.equal(closest.distances == 0, wrong)
    assert torch.equal(closest.adversarial[wrong], images[wrong])


@pytest.mark.parametrize("loss", [cross_entropy, margin], ids=["cross_entropy", "margin"])
def test_targets_are_reached_and_nothing_else_counts(loss, rows, batch):
    images, _ = batch(30)
    model = rows(SHAPE)
    now = model(images).argmax(dim=1)
    targets = (now + torch.arange(30) % 3) % 3
    closest = DDN(loss=targeted(loss)).minimum(model, images, targets)
    assert closest.found.all()
    assert torch.equal(model(closest.adversarial).argmax(dim=1), targets)
    assert torch.equal(closest.distances == 0, targets == now)


def test_a_zero_gradient_is_left_in_a_direction_of_the_image():
    """Peers divide by the norm of delta = 0 here. The plateau ends at distance 1 from the image, in all directions."""

    def model(images):
        changes = (images - 0.5).double()
        far = changes.square().sum(dim=(1, 2, 3)) > 1
        return torch.stack((torch.ones(len(images)), 2 * far + 0 * images.sum(dim=(1, 2, 3))), dim=1)

    images = torch.full((6, 1, 8, 8), 0.5)
    labels = torch.zeros(6, dtype=torch.int64)
    closest = DDN(levels=None).minimum(model, images, labels, random=ImageRandom(0))
    assert (closest.distances > 1).all()
    assert (closest.distances < 1.1).all()
    changes = closest.adversarial - images
    assert (changes[0] - changes[1]).abs().max() > 0.05  # each its own way


@pytest.mark.parametrize("levels", [None, 256])
def test_every_batch_size_and_order_gives_the_same_images(levels, rows, batch):
    model = rows(SHAPE)
    images, _ = batch(12)
    labels, ids = model(images).argmax(dim=1), torch.arange(12) * 1000 + 3
    attack = DDN(steps=30, levels=levels)
    whole = attack.minimum(model, images, labels, random=ImageRandom(7, ids))
    assert whole.found.all()
    for size in (1, 5):
        parts = [
            attack.minimum(model, images[part], labels[part], random=ImageRandom(7, ids[part]))
            for part in torch.arange(12).split(size)
        ]
        assert torch.equal(torch.cat([part.adversarial for part in parts]), whole.adversarial)
        assert torch.equal(torch.cat([part.distances for part in parts]), whole.distances)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = attack(model, images[order], labels[order], random=ImageRandom(7, ids[order]))
    assert torch.equal(shuffled, whole.adversarial[order])


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_comes_back(double, rows, batch):
    images, _ = batch(6)
    images = (images.double() if double else images).to(memory_format=torch.channels_last)
    model = rows(SHAPE).train()
    labels = model(images).argmax(dim=1)
    before = images.clone()
    with torch.no_grad():
        closest = DDN(steps=20).minimum(model, images, labels, random=ImageRandom(0))
        again = DDN(steps=20)(model, images, labels, random=ImageRandom(0))
    found = closest.adversarial
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert not found.requires_grad
    assert torch.equal(found, again)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert torch.equal(images, before)
    assert model.training
    assert model.weight.grad is None
    assert closest.norm == "L2"


def test_awkward_models(batch):
    flat = lambda x: torch.stack((0 * x.sum(dim=(1, 2, 3)) + 1, 0 * x.sum(dim=(1, 2, 3))), dim=1)  # noqa: E731
    images = batch(4)[0]
    closest = DDN(steps=10).minimum(flat, images, torch.tensor([0, 1, 0, 1]))
    assert closest.distances.tolist() == [torch.inf, 0, torch.inf, 0]
    assert torch.equal(closest.adversarial, images)
    broken = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * torch.nan), dim=1)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="logits or gradients of 4 of 4 images were not finite") as caught:
        closest = DDN(steps=10).minimum(broken, images, torch.tensor([0, 1, 0, 1]))
    assert caught[0].filename == __file__
    assert closest.distances.isnan().all()
    with pytest.warns(RuntimeWarning, match="no gradient to follow") as caught:
        DDN(steps=3)(lambda x: flat(x.detach()), images, torch.tensor([0, 1, 0, 1]))
    assert caught[0].filename == __file__


def test_an_empty_batch(rows):
    closest = DDN().minimum(rows(SHAPE), torch.zeros(0, *SHAPE), torch.zeros(0, dtype=torch.int64))
    assert closest.adversarial.shape == (0, *SHAPE)
    assert closest.distances.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "DDN: steps must be at least 1, got 0"),
        ({"gamma": 1.0}, ValueError, "DDN: gamma must be above 0 and below 1"),
        ({"initial_norm": 0}, ValueError, "DDN: initial_norm must be above 0"),
        ({"levels": 1}, ValueError, "DDN: levels must be at least 2, or None for any value, got 1"),
        ({"levels": 2.5}, TypeError, "DDN: levels must be an int"),
        ({"loss": "ce"}, TypeError, "DDN: loss must be a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        DDN(**settings)


def test_wrong_calls_are_refused(rows, batch):
    images, labels = batch(3)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        DDN()(rows(SHAPE), images * 255, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        DDN(steps=2)(rows(SHAPE), images, labels + 3)
    with pytest.raises(TypeError, match="random must be an ImageRandom or None"):
        DDN()(rows(SHAPE), images, labels, random=0)


def test_it_works_under_autocast(batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    images, _ = batch(20)
    labels = model(images).argmax(dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        closest = DDN(steps=40).minimum(model, images, labels, random=ImageRandom(0))
    assert closest.found.all()
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()  # in float32, which the attack has not seen


@pytest.mark.gpu
def test_the_gpu_finds_the_same_and_is_not_asked_in_the_loop(rows, batch):
    images, _ = batch(32)
    model = rows(SHAPE)
    labels = model(images).argmax(dim=1)
    here = DDN(levels=None).minimum(model, images, labels, random=ImageRandom(0))
    model, images, labels = model.cuda(), images.cuda(), labels.cuda()
    there = DDN(levels=None).minimum(model, images, labels, random=ImageRandom(0))
    torch.testing.assert_close(there.distances.cpu(), here.distances, rtol=1e-3, atol=0)
    counts = []
    for steps in (10, 30):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                DDN(steps=steps)(model, images, labels, random=ImageRandom(0))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert counts[0] == counts[1]
