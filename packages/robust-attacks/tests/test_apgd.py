"""APGD: the published schedule against a slow reading of the paper, closed forms, laws."""

import math

import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf, cross_entropy, dlr, margin, targeted
from robust_attacks._apgd import checkpoints
from robust_attacks._apgd_l1 import phases
from robust_attacks.apgd import APGD

THREATS = [Linf(eps=0.05), L2(eps=0.4), L1(eps=1.5)]
CLOSE = [Linf(eps=0.01), L2(eps=0.08), L1(eps=0.3)]


def model_of(rows, images):
    """Three classes whose boundaries run among the images; arithmetic that does not depend on the batch."""
    inner = rows(images.shape[1:])
    with torch.no_grad():
        centre = inner(images.double().mean(dim=0, keepdim=True))

    class Centred(torch.nn.Module):
        def forward(self, x):
            return inner(x) - centre

    return Centred().eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (0.2 + 0.6 * torch.rand(12, 3, 5, 4, generator=generator)).float()


@pytest.fixture
def labels(images, rows):
    return model_of(rows, images)(images).argmax(dim=1)


def test_checks_the_step_after_the_published_updates():
    ends = checkpoints(100)
    assert [update for update, period in enumerate(ends) if period] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [period for period in ends if period] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert [sum(checkpoints(steps)) <= steps for steps in range(1, 40)] == [True] * 39


def test_three_phases_share_the_updates_of_l1():
    assert phases(100) == [30, 30, 40]
    assert phases(1) == [0, 0, 1]
    for steps in range(1, 60):
        assert sum(phases(steps)) == steps
        assert phases(steps)[2] >= 1


def slow_apgd(model, image, label, lower, upper, start, eps, steps):
    """One image, Linf, in float64, written from the text of the paper with lists instead of masks."""
    project = lambda x: torch.minimum(torch.maximum(x, lower), upper)  # noqa: E731

    def look(x):
        leaf = x.clone().requires_grad_()
        loss = margin(model(leaf), label).sum()
        return float(loss.detach()), torch.autograd.grad(loss, leaf)[0]

    x = before = start
    loss, gradient = look(x)
    best, best_loss, best_gradient = x, loss, gradient
    losses, step, halvings = [0.0], 2 * eps, 0
    halved, loss_at_check, ends = True, -math.inf, checkpoints(steps)
    for update in range(1, steps + 1):
        a = 1.0 if update == 1 else 0.75
        landing = project(x + step * gradient.sign())
        x, before = project(x + a * (landing - x) + (1 - a) * (x - before)), x
        loss, gradient = look(x)
        losses.append(loss)
        if loss > best_loss:
            best, best_loss, best_gradient = x, loss, gradient
        if period := ends[update]:
            rises = sum(losses[j] > losses[j - 1] for j in range(update - period + 1, update + 1))
            halve = rises <= 0.75 * period or (not halved and best_loss <= loss_at_check)
            halved, loss_at_check = halve, best_loss
            if halve:
                step, x, gradient, halvings = step / 2, best, best_gradient, halvings + 1
    return best, halvings


def test_takes_the_steps_of_the_paper(rows):
    """On images that cannot be broken, the best iterate is that of the slow version in another arithmetic."""
    shape, eps, steps = (2, 4, 4), 0.4, 40
    model = rows(shape, seed=3)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(6, *shape, generator=generator, dtype=torch.float64)
    offset = torch.zeros(6, 3, dtype=torch.float64)
    labels = model(images).argmax(dim=1)
    offset[torch.arange(6), labels] = 90.0  # far from every boundary

    class Offset(torch.nn.Module):
        """Adds to the logits of each image, told apart by its place in the batch."""

        def forward(self, x):
            return model(x) + offset[: len(x)]

    random = ImageRandom(seed=4, ids=torch.arange(6))
    adversarial = APGD(threat=Linf(eps=eps), steps=steps, loss=margin)(Offset(), images, labels, random=random)
    noise = 2 * random.uniform("apgd-margin/start", shape) - 1
    noise = noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True)
    for row in range(6):
        lower, upper = (images[row : row + 1] - eps).clamp(min=0), (images[row : row + 1] + eps).clamp(max=1)
        start = (images[row : row + 1] + eps * noise[row : row + 1].double()).clamp(lower, upper)
        one = lambda x, row=row: model(x) + offset[row]  # noqa: E731
        expected, halvings = slow_apgd(one, images[row], labels[row : row + 1], lower, upper, start, eps, steps)
        torch.testing.assert_close(adversarial[row : row + 1], expected, rtol=0, atol=1e-9)
        assert halvings >= 2


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.1)], ids=["Linf", "L2"])
def test_reaches_the_worst_case_of_a_linear_model(linear, threat):
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.full((3, 3, 4, 4), 0.5)
    model = linear(weight, bias=-float((weight * 0.5).sum()) + 10.0)
    labels = torch.ones(3, dtype=torch.int64)
    adversarial = APGD(threat=threat, steps=30, loss=margin)(model, images, labels, random=ImageRandom(0))
    fall = threat.eps * (weight.abs().sum() if threat.name == "Linf" else weight.norm())
    gone = (model.value(images) - model.value(adversarial)).detach()
    torch.testing.assert_close(gone, fall.double().expand(3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("eps_share", [0.97, 1.05], ids=["too small", "large enough"])
def test_l1_breaks_a_linear_model_beyond_the_distance(linear, eps_share):
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    # Two pixels carry the shortest ways: with 48 pixels the published density never gets down to a single one.
    weight[0, 0, 0], weight[0, 0, 1] = 9.0, 8.8
    images = torch.full((4, 3, 4, 4), 0.5)
    model = linear(weight, bias=-float((weight * 0.5).sum()) + 2.7)
    attack = APGD(threat=L1(eps=0.3 * eps_share), steps=100)
    labels = torch.ones(4, dtype=torch.int64)
    broken = model(attack(model, images, labels, random=ImageRandom(0))).argmax(dim=1) != labels
    assert broken.tolist() == [eps_share > 1] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("settings", [{}, {"targets": 2}, {"restarts": 2, "loss": dlr}], ids=["ce", "t", "dlr"])
def test_results_are_inside_and_plain(rows, images, labels, threat, settings, dtype):
    model = model_of(rows, images)
    images = images.to(dtype)
    images[0], images[1] = 0, 1
    before = images.clone()
    adversarial = APGD(threat=threat, steps=12, **settings)(model, images, labels, random=ImageRandom(0))
    assert adversarial.dtype == dtype
    assert adversarial.shape == images.shape
    assert not adversarial.requires_grad
    assert torch.equal(images, before)
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1
    assert bool((threat.distance(images, adversarial) <= threat.eps * (1 + threat.tolerance)).all())


@pytest.mark.parametrize("threat", CLOSE, ids=lambda threat: threat.name)
@pytest.mark.parametrize("settings", [{"restarts": 2}, {"targets": 2}], ids=["ce", "t"])
def test_an_image_does_not_feel_the_others(rows, images, labels, threat, settings):
    model, attack = model_of(rows, images), APGD(threat=threat, steps=15, **settings)
    random = ImageRandom(7, torch.arange(100, 112))
    together = attack(model, images, labels, random=random)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    shuffled = attack(model, images[order], labels[order], random=random[order])
    assert torch.equal(shuffled, together[order])
    for part in (slice(0, 1), slice(1, 6), slice(6, 12)):
        assert torch.equal(attack(model, images[part], labels[part], random=random[part]), together[part])
    broken = model(together).argmax(dim=1) != labels
    assert 0 < int(broken.sum()) < 12  # both kinds were compared


def test_targets_are_the_runners_up_of_the_clean_image(rows, images, labels):
    """Images that only the second target breaks come back broken, and a target beyond K - 1 does not exist."""
    model = model_of(rows, images)
    attacks = [APGD(threat=Linf(eps=0.05), steps=20, targets=targets) for targets in (1, 2, 9)]
    results = [attack(model, images, labels, random=ImageRandom(0)) for attack in attacks]
    standing = [(model(result).argmax(dim=1) == labels) for result in results]
    assert bool((standing[1] <= standing[0]).all())
    assert torch.equal(results[1], results[2])
    assert [attack.search(3, 0).runs for attack in attacks] == [1, 2, 2]


def test_any_misclassification_ends_a_targeted_run():
    """The run approaches class 2, but class 1 lies before it."""

    def model(images):
        value = images.double().sum(dim=(1, 2, 3))
        return torch.stack((0 * value, 20 * (value - 0.55), 10 * (value - 0.52) - 0.5, 0 * value - 9), dim=1)

    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    attack = APGD(threat=Linf(eps=0.06), targets=1, steps=20)
    assert attack.search(4, 0).runs == 1
    assert int(model(images).argsort(dim=1, descending=True)[0, 1]) == 2
    assert int(model(attack(model, images, labels, random=ImageRandom(0))).argmax()) == 1


def test_moves_towards_the_labels_of_a_targeted_loss(rows, images, labels):
    model = model_of(rows, images)
    goals = (labels + 1) % 3
    attack = APGD(threat=Linf(eps=0.2), steps=20, loss=targeted(cross_entropy))
    assert torch.equal(model(attack(model, images, goals, random=ImageRandom(0))).argmax(dim=1), goals)
    assert torch.equal(attack(model, images, labels, random=ImageRandom(0)), images)


def test_an_image_that_is_wrong_already_stays(rows, images, labels):
    model = model_of(rows, images)
    labels = labels.clone()
    labels[3] = (labels[3] + 1) % 3
    adversarial = APGD(threat=Linf(eps=0.05), steps=5)(model, images, labels, random=ImageRandom(0))
    assert torch.equal(adversarial[3], images[3])


def test_a_start_that_is_adversarial_is_returned():
    """No gradient leads anywhere, but every random start is misclassified."""
    model = lambda x: torch.stack(((x == 0.5).all(dim=(1, 2, 3)) * 2.0 - 1, 0 * x.sum(dim=(1, 2, 3))), dim=1)  # noqa: E731
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    adversarial = APGD(threat=Linf(eps=0.1), steps=3)(model, images, labels, random=ImageRandom(0))
    assert model(adversarial).argmax(dim=1).tolist() == [1, 1, 1]


def test_costs_what_the_paper_says(rows, images, labels):
    """101 forward passes of 100 updates, counted at a model that cannot be broken; a broken image costs less."""
    seen = [0]
    inner = model_of(rows, images)

    def counting(x):
        seen[0] += len(x)
        return inner(x) * 0 + torch.nn.functional.one_hot(labels[:1].expand(len(x)), 3) + 0 * x.sum()

    one, its_label = images[:1], labels[:1]
    APGD(threat=Linf(eps=0.05))(counting, one, its_label, random=ImageRandom(0))
    assert seen[0] == 1 + 101  # the first judges the clean image
    seen[0] = 0
    APGD(threat=L1(eps=0.05))(counting, one, its_label, random=ImageRandom(0))
    assert seen[0] == 1 + 103
    seen[0] = 0
    APGD(threat=Linf(eps=0.05), targets=2)(counting, one, its_label, random=ImageRandom(0))
    assert seen[0] == 1 + 2 * 101


def test_eps_zero_gives_the_images_back(rows, images, labels):
    for threat in (Linf(eps=0), L2(eps=0), L1(eps=0)):
        adversarial = APGD(threat=threat, steps=5)(model_of(rows, images), images, labels, random=ImageRandom(0))
        assert torch.equal(adversarial, images)


def test_every_image_may_have_a_radius_of_its_own(rows, images, labels):
    model, radii = model_of(rows, images), torch.linspace(0, 0.1, 12)
    together = APGD(threat=Linf(eps=radii), steps=10)(model, images, labels, random=ImageRandom(0, torch.arange(12)))
    for row in (0, 5, 11):
        one = ImageRandom(0, torch.tensor([row]))
        attack = APGD(threat=Linf(eps=float(radii.double()[row])), steps=10)
        part = slice(row, row + 1)
        assert torch.equal(attack(model, images[part], labels[part], random=one), together[part])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_logits_are_no_success_and_are_told(rows, images, labels, bad):
    inner = model_of(rows, images)
    model = lambda x: torch.where((x[:, 0, 0, 0] == images[0, 0, 0, 0])[:, None], inner(x), bad)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="logits of 1 of 1 images were not finite"):
        adversarial = APGD(threat=Linf(eps=0.05), steps=5)(model, images[:1], labels[:1], random=ImageRandom(0))
    assert bool(adversarial.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"threat": 8 / 255}, TypeError, "threat must say norm and radius"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"restarts": 257}, ValueError, r"restarts must be in 1\.\.256, got 257"),
        ({"targets": -1}, ValueError, "targets must be at least 1, got -1"),
        ({"targets": 9, "restarts": 2}, ValueError, "every target gets one run"),
        ({"targets": 9, "loss": dlr}, ValueError, "increase the targeted DLR loss: leave out loss"),
        ({"eot": 0}, ValueError, "eot must be at least 1"),
        ({"loss": "ce"}, TypeError, "loss must be a function"),
    ],
)
def test_refuses_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        APGD(**{"threat": Linf(eps=0.1)} | settings)


def test_dlr_with_two_classes_names_the_margin(images):
    model = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), 0 * x[:, 0, 0, 0]), dim=1)  # noqa: E731
    attack = APGD(threat=Linf(eps=0.1), loss=dlr)
    with pytest.raises(ValueError, match="dlr needs at least 3 classes, the logits have 2: use margin"):
        attack(model, images, torch.zeros(12, dtype=torch.int64))


def test_averages_draws_of_a_randomised_model():
    """The gradient of one draw has a random sign; the mean of many points downhill."""

    class Noisy(torch.nn.Module):
        def forward(self, x):
            value = x.sum(dim=(1, 2, 3)) * (1 + 3 * torch.randn(len(x)))
            return torch.stack((value, 0 * value), dim=1)

    images, labels = torch.full((8, 1, 2, 2), 0.5), torch.zeros(8, dtype=torch.int64)
    settled = APGD(threat=Linf(eps=0.2), steps=10, eot=60, loss=margin)
    adversarial = settled(Noisy(), images, labels, random=ImageRandom(0))
    assert bool((adversarial.sum(dim=(1, 2, 3)) < 1.21).all())
    first, second = (settled(Noisy(), images, labels, random=ImageRandom(0)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("threat", [Linf(eps=1e-6), L2(eps=2e-3), L1(eps=1e-2)], ids=lambda threat: threat.name)
def test_balls_as_small_as_the_rounding_of_pixels_are_not_left(threat):
    """The sum of the roundings of 3,072 pixels in float32 is not small beside these radii."""
    weight = torch.randn(3072, 4, generator=torch.Generator().manual_seed(0))
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 3, 0])
    model = lambda x: x.flatten(1) @ weight + 1e4 * torch.nn.functional.one_hot(labels[: len(x)], 4)  # noqa: E731
    adversarial = APGD(threat=threat, steps=10)(model, images, labels, random=ImageRandom(0))
    assert bool((threat.distance(images, adversarial) <= threat.eps * (1 + threat.tolerance)).all())
    assert not torch.equal(adversarial, images)
