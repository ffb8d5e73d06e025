"""DeepFool against closed forms, a slow program of its own, and laws."""

import math

import pytest
import torch
from robust_attacks import ImageRandom, _host, margin, targeted
from robust_attacks.closest import distance
from robust_attacks.deepfool import DeepFool
from torch import nn

SHAPE = (2, 4, 4)
DUALS = {"L2": 2, "Linf": 1}
each_norm = pytest.mark.parametrize("norm", ["L2", "Linf"])


class Bent(nn.Module):
    """Many classes with curved boundaries; rows are computed by themselves, in float64."""

    def __init__(self, classes=12, seed=0, curve=0.3):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((classes, *SHAPE), generator=generator, dtype=torch.float64))
        self.curve = curve

    def forward(self, images):
        bent = images.double() + self.curve * torch.sin(7 * images.double())
        return torch.stack([(bent * weight).sum(dim=(1, 2, 3)) for weight in self.weight], dim=1)


def slow(model, image, label, norm, steps=50, overshoot=0.02, candidates=10):
    """Algorithm 2 for one image, class by class: the adversarial image, or None."""
    image = image.double()
    clean = model(image[None])[0].detach()
    order = sorted(range(len(clean)), key=lambda k: (-float(clean[k]), k))
    others = [k for k in order if k != label][: candidates - 1]
    walked, point = torch.zeros_like(image), image
    for step in range(steps + 1):
        if int(model(point[None])[0].argmax()) != label:
            return point
        if step == steps:
            return None
        choices = []
        for k in others:
            leaf = point.clone().requires_grad_()
            logits = model(leaf[None])[0]
            gap = logits[k] - logits[label]
            (slope,) = torch.autograd.grad(gap, leaf)
            choices.append((abs(gap.item()) / float(slope.norm(DUALS[norm])), slope))
        reach, slope = min(choices, key=lambda choice: choice[0])
        walked = walked + (reach + 1e-4) * (slope.sign() if norm == "Linf" else slope / slope.norm())
        point = (image + (1 + overshoot) * walked).clamp(0, 1)
    return None


@each_norm
@pytest.mark.parametrize("settings", [{}, {"candidates": 3}, {"overshoot": 0.5}, {"steps": 1}], ids=str)
def test_it_is_what_a_slow_program_finds(norm, settings, batch):
    model, images = Bent(), batch(8)[0].double()
    labels = model(images).argmax(dim=1)
    closest = DeepFool(norm=norm, **settings).minimum(model, images, labels)
    expected = [slow(model, *pair, norm, **settings) for pair in zip(images, labels.tolist(), strict=True)]
    assert closest.found.tolist() == [found is not None for found in expected]
    assert any(closest.found)
    expected = [image if found is None else found for image, found in zip(images, expected, strict=True)]
    torch.testing.assert_close(closest.adversarial, torch.stack(expected).detach(), rtol=0, atol=1e-9)


@each_norm
@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
def test_one_step_crosses_the_boundary_of_a_linear_model(norm, overshoot, linear, batch):
    images = batch(20)[0] * 0.2 + 0.4
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = linear(weight, bias=-0.5 * float(weight.sum()))
    labels = (model.value(images) > 0).long()
    closest = DeepFool(norm=norm, steps=1, overshoot=overshoot).minimum(model, images, labels)
    least = (model.value(images).abs() / weight.double().norm(DUALS[norm])).detach()
    assert least.max() < 0.35
    assert closest.found.all()
    expected = (1 + overshoot) * (least + 1e-4)
    torch.testing.assert_close(closest.distances, expected, rtol=0, atol=2e-7)
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(closest.distances, distance(norm, images, closest.adversarial), rtol=0, atol=0)


@each_norm
def test_it_goes_for_the_nearest_of_several_boundaries_among_the_candidates(norm):
    """Planes at known distances; the class next in the logits is not the one whose boundary is nearest."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(4, 32, generator=generator, dtype=torch.float64)
    normals = normals / normals.norm(dim=1, keepdim=True) * torch.tensor([0.0, 1.0, 9.0, 30.0])[:, None]
    offsets = torch.tensor([0.0, -0.5, -1.0, -2.0]).double() - normals.sum(dim=1) / 2

    def model(images):
        return images.double().flatten(1) @ normals.T + offsets

    distances = torch.tensor([0.5, 1.0, 2.0]).double() / normals[1:].norm(DUALS[norm], dim=1)
    assert distances.tolist() == sorted(distances.tolist(), reverse=True)
    image = torch.full((1, *SHAPE), 0.5)
    for candidates in (2, 3, 4, 10):
        closest = DeepFool(norm=norm, steps=1, candidates=candidates).minimum(model, image, torch.tensor([0]))
        expected = 1.02 * (float(distances[: candidates - 1].min()) + 1e-4)
        assert float(closest.distances) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_its_cost(classes, batch, counting):
    """One forward and at most nine backward passes a step; images leave the batch when they are misclassified."""
    model, images = counting(Bent(classes)), batch(6)[0]
    labels = model.model(images).argmax(dim=1)
    model.forwards.clear()
    closest = DeepFool().minimum(model, images, labels)
    assert closest.found.all()
    *steps, verdict = model.forwards
    assert steps[0] == verdict == 6
    assert steps == sorted(steps, reverse=True)
    assert model.backwards == [size for size in steps for _ in range(min(10, classes) - 1)][: len(model.backwards)]
    assert len(model.backwards) in ((len(steps) - 1) * (min(10, classes) - 1), len(steps) * (min(10, classes) - 1))


@each_norm
def test_images_that_are_misclassified_stay_as_they_are(norm, batch):
    model, images = Bent(), batch(20)[0]
    labels = model(images).argmax(dim=1)
    labels[::2] = (labels[::2] + 1) % 12
    closest = DeepFool(norm=norm).minimum(model, images, labels)
    assert torch.equal(closest.adversarial[::2], images[::2])
    assert (closest.distances[::2] == 0).all()
    assert (closest.distances[1::2] > 0).all()


@each_norm
def test_every_batch_size_and_order_gives_the_same_images(norm, batch):
    model, images = Bent(curve=0.6), batch(16)[0]
    labels, ids = model(images).argmax(dim=1), torch.arange(16)
    attack = DeepFool(norm=norm)
    whole = attack.minimum(model, images, labels)
    assert whole.found.any()
    for size in (1, 5):
        parts = [attack.minimum(model, images[part], labels[part]) for part in ids.split(size)]
        assert torch.equal(torch.cat([part.adversarial for part in parts]), whole.adversarial)
        assert torch.equal(torch.cat([part.distances for part in parts]), whole.distances)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order]), whole.adversarial[order])


@each_norm
def test_looking_seldom_gives_the_same_images(norm, monkeypatch, batch):
    model, images = Bent(curve=0.6), batch(16)[0]
    labels = model(images).argmax(dim=1)
    expected = DeepFool(norm=norm).minimum(model, images, labels)
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    found = DeepFool(norm=norm).minimum(model, images, labels)
    assert torch.equal(found.adversarial, expected.adversarial)
    assert torch.equal(found.distances, expected.distances)


@each_norm
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_comes_back(norm, double, batch):
    images = batch(6)[0]
    images = (images.double() if double else images).to(memory_format=torch.channels_last)
    model = Bent().train()
    labels = model(images).argmax(dim=1)
    before = images.clone()
    with torch.no_grad():
        closest = DeepFool(norm=norm).minimum(model, images, labels, random=ImageRandom(0))
        again = DeepFool(norm=norm)(model, images, labels, random=ImageRandom(0))
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
    assert closest.norm == norm


@each_norm
def test_awkward_models(norm, batch):
    images, labels = batch(4)[0], torch.tensor([0, 1, 0, 1])
    flat = lambda x: torch.stack((0 * x.sum(dim=(1, 2, 3)) + 1, 0 * x.sum(dim=(1, 2, 3))), dim=1)  # noqa: E731
    closest = DeepFool(norm=norm).minimum(flat, images, labels)
    assert closest.distances.tolist() == [torch.inf, 0, torch.inf, 0]
    assert torch.equal(closest.adversarial, images)
    broken = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * torch.nan), dim=1)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="logits or gradients of 4 of 4 images were not finite") as caught:
        closest = DeepFool(norm=norm).minimum(broken, images, labels)
    assert caught[0].filename == __file__
    assert closest.distances.isnan().all()
    with pytest.warns(RuntimeWarning, match="no gradient to follow") as caught:
        DeepFool(norm=norm)(lambda x: flat(x.detach()), images, labels)
    assert caught[0].filename == __file__


@each_norm
@pytest.mark.parametrize("slope", [1e-42, 1e-20, 1e20, 1e36])
def test_tiny_and_huge_slopes_leave_no_nan(norm, slope):
    def model(images):
        value = slope * (images - 0.4).double().sum(dim=(1, 2, 3))
        return torch.stack((value, 0 * value), dim=1)

    images = torch.full((3, *SHAPE), 0.5)
    closest = DeepFool(norm=norm).minimum(model, images, torch.zeros(3, dtype=torch.int64))
    least = 0.1 if norm == "Linf" else 0.1 * math.sqrt(32)
    if slope > 1e-38:  # what is smaller has few digits in float32
        torch.testing.assert_close(
            closest.distances, torch.full((3,), 1.02 * (least + 1e-4)).double(), rtol=1e-5, atol=0
        )
    assert closest.adversarial.isfinite().all()


def test_the_boundary_itself_is_left():
    """An image on the boundary has a ratio of zero: only the additional 1e-4 leads away."""
    model = lambda x: torch.stack((x[:, 0, 0, 0], 0 * x[:, 0, 0, 0] + 0.5), dim=1)  # noqa: E731
    closest = DeepFool().minimum(model, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]))
    assert float(closest.distances) == pytest.approx(1.02e-4, rel=1e-3)


def test_an_empty_batch():
    closest = DeepFool().minimum(Bent(), torch.zeros(0, *SHAPE), torch.zeros(0, dtype=torch.int64))
    assert closest.adversarial.shape == (0, *SHAPE)
    assert closest.distances.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"norm": "L1"}, ValueError, 'DeepFool: norm must be "L2" or "Linf", got \'L1\''),
        ({"steps": 0}, ValueError, "DeepFool: steps must be at least 1, got 0"),
        ({"overshoot": -0.1}, ValueError, "DeepFool: overshoot must be at least 0"),
        ({"candidates": 1}, ValueError, "DeepFool: candidates must be at least 2, the label and another, got 1"),
        ({"candidates": 2.5}, TypeError, "DeepFool: candidates must be an int"),
        ({"loss": targeted(margin)}, TypeError, "loss"),  # not defined for targets
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        DeepFool(**settings)


def test_wrong_calls_are_refused(rows, batch):
    images, labels = batch(3)[0], torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        DeepFool()(rows(SHAPE), images * 255, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        DeepFool()(rows(SHAPE), images, labels + 3)
    with pytest.raises(TypeError, match="random must be an ImageRandom or None"):
        DeepFool()(rows(SHAPE), images, labels, random=0)


@pytest.mark.gpu
@each_norm
def test_the_gpu_finds_the_same(norm, batch):
    model, images = Bent(), batch(32)[0]
    labels = model(images).argmax(dim=1)
    here = DeepFool(norm=norm).minimum(model, images, labels)
    there = DeepFool(norm=norm).minimum(model.cuda(), images.cuda(), labels.cuda())
    torch.testing.assert_close(there.distances.cpu(), here.distances, rtol=1e-3, atol=0)
