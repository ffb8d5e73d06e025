"""Carlini and Wagner's attack against closed forms, a slow program of its own with torch's Adam, and laws."""

import math

import pytest
import torch
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks.carlini_wagner import CarliniWagner
from robust_attacks.closest import distance

SHAPE = (2, 4, 4)
QUICK = {"steps": 60, "searches": 4, "learning_rate": 0.1, "initial_constant": 0.1}


def slow(model, image, label, attack, target=False):
    """Section VI.A for one image, with autograd through tanh and torch.optim.Adam: the distance, or inf."""
    start = ((2 * image - 1) * (1 - 1e-6)).atanh()
    best, lower, upper, constant = math.inf, 0.0, math.inf, attack.initial_constant
    for search in range(attack.searches):
        if attack.searches >= 10 and search == attack.searches - 1:
            constant = min(upper, 1e10)
        variable = start.clone().requires_grad_()
        adam = torch.optim.Adam([variable], lr=attack.learning_rate)
        found, least, before = False, math.inf, math.inf
        for step in range(attack.steps):
            point = (variable.tanh() + 1) / 2
            logits = model(point[None])[0]
            others = torch.cat((logits[:label], logits[label + 1 :])).max()
            gap = logits[label] - others if target else others - logits[label]
            square = (point - image).square().sum()
            if gap.item() >= attack.confidence and int(logits.argmax() == label) == int(target):
                found, best = True, min(best, square.item() ** 0.5)
            loss = square + constant * (attack.confidence - gap).clamp(min=0)
            least = min(least, loss.item())
            if attack.abort_early and step % math.ceil(attack.steps / 10) == 0:
                if step and least > 0.9999 * before:
                    break
                before = least
            adam.zero_grad()
            loss.backward()
            adam.step()
        upper, lower = (min(upper, constant), lower) if found else (upper, max(lower, constant))
        constant = (lower + upper) / 2 if upper < math.inf else min(10 * constant, 1e10)
    return best


@pytest.mark.parametrize(
    "settings", [{}, {"abort_early": False}, {"confidence": 0.1}, {"searches": 11, "steps": 20}], ids=str
)
@pytest.mark.parametrize("target", [False, True], ids=["untargeted", "targeted"])
def test_it_is_what_a_slow_program_with_torch_adam_finds(settings, target, rows, batch):
    model, images = rows(SHAPE), batch(2)[0].double()
    labels = model(images).argmax(dim=1)
    labels = (labels + 1) % 3 if target else labels
    loss = targeted(margin) if target else margin
    attack = CarliniWagner(**{**QUICK, "steps": 20, "learning_rate": 0.3, "loss": loss, **settings})
    closest = attack.minimum(model, images, labels)
    expected = [slow(model, image, int(label), attack, target) for image, label in zip(images, labels, strict=True)]
    assert min(expected) < math.inf
    torch.testing.assert_close(closest.distances, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_it_comes_near_the_boundary_of_a_linear_model(linear, batch):
    images = batch(20)[0] * 0.4 + 0.3
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = linear(weight, bias=-0.5 * float(weight.sum()))
    labels = (model.value(images) > 0).long()
    closest = CarliniWagner(steps=200, searches=8, initial_constant=0.01).minimum(model, images, labels)
    least = (model.value(images).abs() / model.weight.norm()).detach()
    assert (closest.distances >= least).all()
    assert (closest.distances <= 1.03 * least + 1e-3).all()
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(closest.distances, distance("L2", images, closest.adversarial), rtol=0, atol=0)


@pytest.mark.parametrize(("confidence", "target"), [(0.5, False), (2.0, True)], ids=["untargeted", "targeted"])
def test_confidence_is_a_margin_that_is_reached(confidence, target, linear, batch):
    """The margin of the linear model is 2 f, so the distance to a margin of k is known."""
    images = batch(12)[0] * 0.2 + 0.4
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = linear(weight, bias=-0.5 * float(weight.sum()))
    labels = (model.value(images) > 0).long()
    attack = CarliniWagner(
        steps=200,
        searches=8,
        initial_constant=0.01,
        confidence=confidence,
        loss=targeted(margin) if target else margin,
    )
    closest = attack.minimum(model, images, 1 - labels if target else labels)
    logits = model(closest.adversarial)
    assert (margin(logits, labels) >= confidence).all()
    least = ((model.value(images).abs() + confidence / 2) / model.weight.norm()).detach()
    assert (closest.distances >= least * (1 - 1e-6)).all()
    assert (closest.distances <= 1.03 * least + 1e-3).all()


def test_a_target_that_is_predicted_by_too_little_is_no_success_yet(linear):
    """Two images are predicted as their target, the first by 0.2 and the second by 3; a margin of 1 is asked for."""
    weight = torch.ones(SHAPE)
    model = linear(weight, bias=-16.0)
    images = torch.full((2, *SHAPE), 0.5)
    images[0] += 0.1 / 32
    images[1] += 1.5 / 32
    closest = CarliniWagner(**QUICK, confidence=1.0, loss=targeted(margin)).minimum(model, images, torch.tensor([1, 1]))
    least = 0.4 / 32**0.5
    assert least <= float(closest.distances[0]) <= 1.1 * least
    assert margin(model(closest.adversarial), torch.tensor([0, 0]))[0].item() >= 1.0
    assert float(closest.distances[1]) == 0
    assert torch.equal(closest.adversarial[1], images[1])
    torch.testing.assert_close(closest.distances, distance("L2", images, closest.adversarial), rtol=0, atol=0)


@pytest.mark.parametrize("searches", [9, 10])
def test_the_constant_grows_tenfold_then_is_bisected_and_the_last_of_ten_is_the_least_that_succeeded(
    searches, monkeypatch, linear
):
    """A fake search that succeeds exactly where the constant is at least 0.5."""
    seen = []

    def minimise(self, objective, shortest, labels, rows, constant):
        seen.append(constant.tolist())
        return constant >= 0.5

    monkeypatch.setattr(CarliniWagner, "_minimise", minimise)
    model = linear(torch.ones(SHAPE), bias=-10.0)
    CarliniWagner(searches=searches, initial_constant=1e-3)(model, torch.full((1, *SHAPE), 0.5), torch.tensor([1]))
    constants = [constant for (constant,) in seen]
    expected, lower, upper, constant = [], 0.0, math.inf, 1e-3
    for _ in range(searches):
        expected.append(constant)
        lower, upper = (lower, constant) if constant >= 0.5 else (constant, upper)
        constant = (lower + upper) / 2 if upper < math.inf else 10 * constant
    if searches == 10:
        expected[-1] = min(value for value in expected[:-1] if value >= 0.5)
    assert constants == pytest.approx(expected, rel=1e-12)
    assert constants[:4] == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])


def test_no_image_decides_over_the_search_of_another():
    """Peers abort a search when all images are stuck, so that one that makes progress keeps the others going.

    Image 0 is stuck at once, since its gradient is zero. Image 1 makes progress all the way. Each must be judged as
    often as by itself.
    """
    seen = []

    def model(images):
        flat = images[:, 0, 0, 0] > 0.9
        value = torch.where(flat, 0 * images.sum(dim=(1, 2, 3)) + 5, images.sum(dim=(1, 2, 3)))
        seen.extend(round(float(first)) for first in images[:, 0, 0, 0].detach())
        return torch.stack((value, 0 * value), dim=1)

    images = torch.full((2, 1, 2, 2), 0.25)
    images[0, 0, 0, 0] = 1.0
    attack = CarliniWagner(steps=100, searches=1, learning_rate=0.002, initial_constant=10.0)
    labels = torch.zeros(2, dtype=torch.int64)
    attack.minimum(model, images, labels)
    together = [seen.count(kind) for kind in (0, 1)]
    alone = []
    for row in (1, 0):
        seen.clear()
        attack.minimum(model, images[row : row + 1], labels[:1])
        alone.append(seen.count(1 - row))
    assert together == alone
    assert alone[0] == 1 + 100 + 1  # the image, all steps, the second verdict
    assert alone[1] == 1 + 11 + 1  # stuck after a tenth


def test_all_logits_may_be_negative(linear, batch):
    """Masking the label by a zero makes the margin of negative logits meaningless."""
    images = batch(6)[0] * 0.4 + 0.3
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = linear(weight, bias=-0.5 * float(weight.sum()))
    labels = model(images).argmax(dim=1)
    whole = CarliniWagner(**QUICK).minimum(model, images, labels)
    shifted = CarliniWagner(**QUICK).minimum(lambda x: model(x) - 1e4, images, labels)
    torch.testing.assert_close(shifted.distances, whole.distances, rtol=1e-6, atol=0)


@pytest.mark.parametrize("abort_early", [False, True])
def test_its_cost(abort_early, rows, batch, counting):
    images = batch(5)[0]
    model = counting(rows(SHAPE))
    labels = model.model(images).argmax(dim=1)
    CarliniWagner(steps=20, searches=3, abort_early=abort_early)(model, images, labels)
    if not abort_early:
        assert model.forwards == [5] * 62
        assert model.backwards == [5] * 60
    assert sum(model.forwards) <= 5 * 62
    assert model.forwards[0] == model.forwards[-1] == 5


def test_images_that_win_already_stay_as_they_are_and_cost_nothing(rows, batch, counting):
    images = batch(30)[0]
    model = counting(rows(SHAPE))
    labels = torch.randint(3, (30,), generator=torch.Generator().manual_seed(1))
    wrong = model.model(images).argmax(dim=1) != labels
    closest = CarliniWagner(**QUICK).minimum(model, images, labels)
    assert 0 < int(wrong.sum()) < 30
    assert torch.equal(closest.distances == 0, wrong)
    assert torch.equal(closest.adversarial[wrong], images[wrong])
    assert max(model.backwards) == 30 - int(wrong.sum())


def test_targets_are_reached_and_nothing_else_counts(rows, batch):
    images, model = batch(30)[0], rows(SHAPE)
    now = model(images).argmax(dim=1)
    targets = (now + torch.arange(30) % 3) % 3
    closest = CarliniWagner(**{**QUICK, "steps": 150, "loss": targeted(margin)}).minimum(model, images, targets)
    assert closest.found.all()
    assert torch.equal(model(closest.adversarial).argmax(dim=1), targets)
    assert torch.equal(closest.distances == 0, targets == now)


def test_every_batch_size_and_order_gives_the_same_images(rows, batch):
    model, images = rows(SHAPE), batch(6)[0]
    labels, ids = model(images).argmax(dim=1), torch.arange(6)
    attack = CarliniWagner(**{**QUICK, "steps": 30, "searches": 3})
    whole = attack.minimum(model, images, labels)
    assert whole.found.all()
    for size in (1, 4):
        parts = [attack.minimum(model, images[part], labels[part]) for part in ids.split(size)]
        assert torch.equal(torch.cat([part.adversarial for part in parts]), whole.adversarial)
        assert torch.equal(torch.cat([part.distances for part in parts]), whole.distances)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order]), whole.adversarial[order])


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_comes_back(double, rows, batch):
    images = batch(6)[0]
    images = (images.double() if double else images).to(memory_format=torch.channels_last)
    model = rows(SHAPE).train()
    labels = model(images).argmax(dim=1)
    before = images.clone()
    with torch.no_grad():
        closest = CarliniWagner(**QUICK).minimum(model, images, labels, random=ImageRandom(0))
        again = CarliniWagner(**QUICK)(model, images, labels, random=ImageRandom(0))
    found = closest.adversarial
    assert closest.found.all()
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert not found.requires_grad
    assert torch.equal(found, again)
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(images, before)
    assert model.training
    assert model.weight.grad is None
    assert closest.norm == "L2"


def test_awkward_models(batch):
    images, labels = batch(4)[0], torch.tensor([0, 1, 0, 1])
    flat = lambda x: torch.stack((0 * x.sum(dim=(1, 2, 3)) + 1, 0 * x.sum(dim=(1, 2, 3))), dim=1)  # noqa: E731
    closest = CarliniWagner(**QUICK).minimum(flat, images, labels)
    assert closest.distances.tolist() == [torch.inf, 0, torch.inf, 0]
    assert torch.equal(closest.adversarial, images)
    broken = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * torch.nan), dim=1)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="logits or gradients of 4 of 4 images were not finite") as caught:
        closest = CarliniWagner(**QUICK).minimum(broken, images, labels)
    assert caught[0].filename == __file__
    assert closest.distances.isnan().all()
    with pytest.warns(RuntimeWarning, match="no gradient to follow") as caught:
        CarliniWagner(**QUICK)(lambda x: flat(x.detach()), images, labels)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("slope", [1e-30, 1e20, 1e36])
def test_tiny_and_huge_slopes_leave_no_nan(slope):
    """A square of the slope leaves float32, and times the constant so does the slope itself."""

    def model(images):
        value = slope * (images - 0.4).sum(dim=(1, 2, 3))
        return torch.stack((value, 0 * value), dim=1)

    images = torch.full((3, *SHAPE), 0.5)
    attack = CarliniWagner(steps=60, searches=3, learning_rate=0.05, initial_constant=1e9)
    closest = attack.minimum(model, images, torch.zeros(3, dtype=torch.int64))
    assert closest.adversarial.isfinite().all()
    if slope > 1:
        assert closest.found.all()


def test_an_empty_batch(rows):
    closest = CarliniWagner().minimum(rows(SHAPE), torch.zeros(0, *SHAPE), torch.zeros(0, dtype=torch.int64))
    assert closest.adversarial.shape == (0, *SHAPE)
    assert closest.distances.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"confidence": -1.0}, ValueError, "CarliniWagner: confidence must be at least 0"),
        ({"learning_rate": 0}, ValueError, "CarliniWagner: learning_rate must be above 0"),
        ({"steps": 0}, ValueError, "CarliniWagner: steps must be at least 1, got 0"),
        ({"searches": 1.5}, TypeError, "CarliniWagner: searches must be an int"),
        ({"initial_constant": 0}, ValueError, "CarliniWagner: initial_constant must be above 0"),
        ({"abort_early": 1}, TypeError, "CarliniWagner: abort_early must be True or False, got 1"),
        ({"loss": cross_entropy}, ValueError, r"loss must be margin or targeted\(margin\)"),
        ({"loss": targeted(cross_entropy)}, ValueError, r"loss must be margin or targeted\(margin\)"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        CarliniWagner(**settings)


def test_wrong_calls_are_refused(rows, batch):
    images, labels = batch(3)[0], torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        CarliniWagner()(rows(SHAPE), images * 255, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        CarliniWagner()(rows(SHAPE), images, labels + 3)
    with pytest.raises(TypeError, match="random must be an ImageRandom or None"):
        CarliniWagner()(rows(SHAPE), images, labels, random=0)


@pytest.mark.gpu
def test_the_gpu_finds_the_same(rows, batch):
    model, images = rows(SHAPE), batch(32)[0]
    labels = model(images).argmax(dim=1)
    here = CarliniWagner(**QUICK).minimum(model, images, labels)
    there = CarliniWagner(**QUICK).minimum(model.cuda(), images.cuda(), labels.cuda())
    torch.testing.assert_close(there.distances.cpu(), here.distances, rtol=1e-2, atol=0)
