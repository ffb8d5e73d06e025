"""FMN against closed forms, a slow program of its own, and laws."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks.closest import distance
from robust_attacks.fmn import FMN, project

SHAPE = (2, 4, 4)
NORMS = ("L0", "L1", "L2", "Linf")
DUALS = {"L1": torch.inf, "L2": 2, "Linf": 1}
ORDERS = {"L1": 1, "L2": 2, "Linf": torch.inf}
each_norm = pytest.mark.parametrize("norm", NORMS)


def slow_projection(norm, image, point, radius):
    """Of one image, in float64: L1 by bisection of what all sizes lose, L0 by sorting."""
    image, change = image.double().flatten(), point.double().flatten() - image.double().flatten()
    size = change.abs()
    if norm == "L1":
        room = torch.where(change > 0, 1 - image, image)
        low, high = 0.0, float(size.max())
        if size.minimum(room).sum() <= radius:
            high = 0.0
        for _ in range(200):
            middle = (low + high) / 2
            over = (size - middle).clamp(min=0).minimum(room).sum() > radius
            low, high = (middle, high) if over else (low, middle)
        change = (size - high).clamp(min=0).minimum(room) * change.sign()
    elif norm == "L2":
        change = change * min(1.0, radius / max(float(change.norm()), 1e-300))
    elif norm == "Linf":
        change = change.clamp(-radius, radius)
    else:
        order = sorted(range(len(size)), key=lambda i: (-float(size[i]), i))[: int(radius)]
        change = torch.zeros_like(change).index_copy(0, torch.tensor(order, dtype=torch.int64), change[order])
    return (image + change).clamp(0, 1)


@given(
    st.integers(0, 10_000),
    st.sampled_from(NORMS),
    st.sampled_from([0.0, 0.3, 2.0, 7.0, 1e4]),
    st.sampled_from([1e-4, 1.0, 1e3]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_points_are_brought_into_ball_and_box(seed, norm, radius, scale, dtype):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((4, 2, 3, 3), generator=generator, dtype=dtype) - 0.2).clamp(0, 1)
    changes = torch.randn((4, 2, 3, 3), generator=generator, dtype=dtype).pow(3)
    changes[1] = changes[1].round()  # equal sizes, and zeros
    points = images + scale * changes
    radius = float(int(radius)) if norm == "L0" else scale * radius
    radii = torch.full((4, 1, 1, 1), radius, dtype=torch.float64)
    before = points.clone()
    found = project(norm, images, points, radii)
    assert torch.equal(points, before)
    assert found.dtype == dtype
    assert ((found >= 0) & (found <= 1)).all()
    rounding = 1e-7 if dtype == torch.float32 else 1e-15
    if norm == "L0":  # rounding makes no changes out of none
        rounding = 0
    assert (distance(norm, images, found) <= radius * (1 + 1e-6) + 18 * rounding).all()
    torch.testing.assert_close(project(norm, images, found, radii), found, rtol=0, atol=4 * rounding)
    expected = torch.stack([slow_projection(norm, *pair, radius) for pair in zip(images, points, strict=True)])
    # What the points themselves have lost to rounding is lost.
    atol = 2 * rounding * (1 + scale) if norm == "L2" else 3e-6 if norm == "L1" else rounding
    torch.testing.assert_close(found.double().flatten(1), expected, rtol=0, atol=atol)


def test_the_l1_projection_is_exact_at_all_scales():
    """Sizes from 1e-12 to 1e3, in float64, and balls from a millionth of a pixel to more than the box."""
    sizes = torch.logspace(-12, 3, 3000, dtype=torch.float64)
    points = torch.stack((sizes, 0.5 - sizes, 0.5 + sizes.sqrt(), torch.ones_like(sizes), torch.zeros_like(sizes)))
    images = torch.stack((0 * sizes, 0.5 + 0 * sizes, 0.5 + 0 * sizes, 0 * sizes, 0 * sizes))
    for radius in (0.0, 1e-6, 1.0, 1e2, 1e4):
        found = project("L1", images[:, None, None], points[:, None, None], torch.full((5, 1, 1, 1), radius).double())
        expected = torch.stack([slow_projection("L1", *pair, radius) for pair in zip(images, points, strict=True)])
        torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-6 * radius)


def test_the_l2_projection_shrinks_what_is_outside_and_leaves_what_is_inside():
    """Peers rescale every point to the radius, or none."""
    images = torch.full((2, 1, 1, 2), 0.5)
    changes = torch.tensor([[0.3, 0.4], [0.03, 0.04]]).reshape(2, 1, 1, 2)
    found = project("L2", images, images + changes, torch.full((2, 1, 1, 1), 0.1, dtype=torch.float64))
    torch.testing.assert_close((found - images).flatten(1), torch.tensor([[0.06, 0.08], [0.03, 0.04]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_l0_projection_keeps_the_first_of_equal_entries(dtype):
    changes = torch.tensor([0.25, -0.5, 0.25, 0.0, 0.25, -0.25], dtype=dtype)
    images = torch.full((7, 1, 1, 6), 0.5, dtype=dtype)
    radii = torch.arange(7.0).double()[:, None, None, None]
    found = project("L0", images, images + changes, radii) - images
    order = [1, 0, 2, 4, 5]
    for count in range(7):
        expected = torch.zeros(6, dtype=dtype)
        expected[order[:count]] = changes[order[:count]]
        assert torch.equal(found[count].flatten(), expected)


def test_under_l1_the_faces_of_the_box_are_no_trap(linear):
    """The steepest pixel has no room for the way: clipped after the projection, it would be all that ever changes."""
    weight = torch.full((1, 2, 4), 0.5)
    weight[0, 0, 0] = 1.0
    model = linear(weight, bias=-0.5 * float(weight.sum()) + 0.8)
    images = torch.full((1, 1, 2, 4), 0.5)
    closest = FMN(norm="L1").minimum(model, images, torch.tensor([1]))
    least = 0.5 + 0.3 / 0.5  # half a pixel of the steepest, and the rest of the others
    assert least <= float(closest.distances) <= 1.02 * least


def slow(norm, model, image, label, steps, target=False):
    """Algorithm 1 for one image in float64; the least norm, or inf."""

    def size(change):
        return float((change != 0).sum() if norm == "L0" else change.norm(ORDERS[norm]))

    most = size(torch.maximum(image, 1 - image))
    point, radius, best = image, 1.0 if norm == "L0" else math.inf, math.inf
    for step in range(steps):
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        alpha, gamma = 0.01 + 0.99 * cosine, 0.001 + 0.049 * cosine
        leaf = point.clone().requires_grad_()
        logits = model(leaf[None])[0]
        others = torch.cat((logits[:label], logits[label + 1 :])).max()
        loss = logits[label] - others if target else others - logits[label]
        (gradient,) = torch.autograd.grad(loss, leaf)
        won = (int(logits.argmax()) == label) == target
        length = size(point - image)
        best = min(best, length) if won else best
        if norm == "L0":
            smaller = min(radius - 1, math.floor(radius * (1 - gamma)), best)
            radius = max(smaller if won else max(radius + 1, math.floor(radius * (1 + gamma))), 1)
        elif won:
            radius = min(radius * (1 - gamma), best)
        elif best < math.inf:
            radius = radius * (1 + gamma)
        else:
            radius = 1.02 * (length + abs(loss.item()) / float(gradient.norm(DUALS[norm])))
        radius = min(radius, most)
        moved = point + alpha * gradient / gradient.norm()
        point = slow_projection(norm, image, moved, radius).view_as(image)
    return best


@each_norm
@pytest.mark.parametrize("target", [False, True], ids=["untargeted", "targeted"])
def test_it_is_what_a_slow_program_finds(norm, target, rows, batch):
    model, images = rows(SHAPE), batch(4)[0].double()
    labels = model(images).argmax(dim=1)
    labels = (labels + 1) % 3 if target else labels
    closest = FMN(norm=norm, steps=40, loss=targeted(margin) if target else margin).minimum(model, images, labels)
    pairs = zip(images, labels.tolist(), strict=True)
    expected = torch.tensor([slow(norm, model, *pair, 40, target) for pair in pairs], dtype=torch.float64)
    assert expected.isfinite().any()
    torch.testing.assert_close(closest.distances, expected, rtol=1e-5 if norm == "L1" else 1e-9, atol=0)


@pytest.mark.parametrize("norm", ["L1", "L2", "Linf"])
def test_it_comes_near_the_boundary_of_a_linear_model(norm, linear, batch):
    images = batch(20)[0] * 0.4 + 0.3
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = linear(weight, bias=-0.5 * float(weight.sum()))
    labels = (model.value(images) > 0).long()
    closest = FMN(norm=norm).minimum(model, images, labels)
    least = (model.value(images).abs() / torch.linalg.vector_norm(model.weight.flatten(), DUALS[norm])).detach()
    in_the_box = least < (0.3 if norm == "L1" else 10)  # one pixel must do under L1
    assert int(in_the_box.sum()) > 5
    assert (closest.distances >= least * (1 - 1e-6)).all()
    assert (closest.distances[in_the_box] <= 1.05 * least[in_the_box]).all()
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(closest.distances, distance(norm, images, closest.adversarial), rtol=0, atol=0)


def test_it_changes_nearly_as_few_entries_as_a_linear_model_allows(linear, batch):
    images = batch(20)[0]
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), bias=-0.3)
    labels = (model.value(images) > 0).long()
    closest = FMN(norm="L0").minimum(model, images, labels)
    downhill = torch.where((labels == 1)[:, None], model.weight.flatten(), -model.weight.flatten()).detach()
    room = torch.where(downhill > 0, images.flatten(1), 1 - images.flatten(1))
    falls = (room * downhill.abs()).sort(dim=1, descending=True).values.cumsum(dim=1)
    fewest = (falls <= model.value(images).abs()[:, None]).sum(dim=1) + 1
    assert (closest.distances >= fewest).all()
    assert (closest.distances <= fewest + 2).all()
    assert closest.distances.median() <= fewest.median() + 1


@pytest.mark.parametrize("norm", ["L1", "L2", "Linf"])
def test_rounding_does_not_keep_it_just_short_of_the_boundary(norm):
    """Where the model is linear the estimate of the distance is exact, and a tie is no success."""
    model = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), 0 * x[:, 0, 0, 0] + 0.75), dim=1)  # noqa: E731
    closest = FMN(norm=norm).minimum(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
    least = {"L1": 0.25, "L2": 0.125 * 2**0.5, "Linf": 0.125}[norm]
    assert least < float(closest.distances) <= 1.01 * least


def test_all_logits_may_be_negative(linear, batch):
    """Masking the label by a zero makes the margin of negative logits meaningless."""
    images = batch(10)[0] * 0.4 + 0.3
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    labels = (model.value(images) > 0).long()
    whole = FMN(norm="L2").minimum(model, images, labels)
    shifted = FMN(norm="L2").minimum(lambda x: model(x) - 1e4, images, labels)
    torch.testing.assert_close(shifted.distances, whole.distances, rtol=1e-3, atol=0)


@pytest.mark.parametrize("steps", [1, 7])
def test_its_cost(steps, rows, batch, counting):
    model = counting(rows(SHAPE))
    images, _ = batch(5)
    labels = model.model(images).argmax(dim=1)
    FMN(steps=steps)(model, images, labels)
    assert model.forwards == [5] * (steps + 1)
    assert model.backwards == [5] * (steps - 1)
    model.forwards.clear()
    FMN(steps=steps)(model, images, labels, starts=1 - images)
    assert model.forwards == [5] * (steps + 13)


@each_norm
def test_images_that_are_misclassified_stay_as_they_are(norm, rows, batch):
    images, labels = batch(30)
    model = rows(SHAPE)
    wrong = model(images).argmax(dim=1) != labels
    for starts in (None, 1 - images):
        closest = FMN(norm=norm, steps=10).minimum(model, images, labels, starts=starts)
        assert torch.equal(closest.distances == 0, wrong)
        assert torch.equal(closest.adversarial[wrong], images[wrong])


@each_norm
@pytest.mark.parametrize("loss", [cross_entropy, margin], ids=["cross_entropy", "margin"])
def test_targets_are_reached_and_nothing_else_counts(norm, loss, rows, batch):
    images, _ = batch(20)
    model = rows(SHAPE)
    now = model(images).argmax(dim=1)
    targets = (now + torch.arange(20) % 3) % 3
    closest = FMN(norm=norm, loss=targeted(loss)).minimum(model, images, targets)
    assert closest.found.all()
    assert torch.equal(model(closest.adversarial).argmax(dim=1), targets)
    assert torch.equal(closest.distances == 0, targets == now)


@each_norm
def test_a_start_is_drawn_near_and_never_lost(norm, linear, batch):
    """The gradient is useless, so that what comes back is the bisected start."""
    images = batch(10)[0] * 0.4 + 0.3
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    labels = (model.value(images) > 0).long()
    away = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach().sign()
    starts = ((away + 1) / 2).float()
    starts[0] = images[0]  # not misclassified: counts as none
    attack = FMN(norm=norm, steps=1)
    closest = attack.minimum(lambda x: model(x.detach()), images, labels, starts=starts)
    assert closest.found.tolist() == [False] + [True] * 9
    most = distance(norm, images, starts)
    assert (closest.distances[1:] < most[1:]).all()
    better = FMN(norm=norm, steps=60).minimum(model, images, labels, starts=starts)
    assert better.found.all()
    assert (better.distances[1:] <= closest.distances[1:]).all()
    if norm == "L2":  # on the line the boundary is known: within a 1024th of the whole
        value, end = model.value(images), model.value(starts)
        crossing = (value / (value - end)).detach() * most
        assert (closest.distances[1:] >= crossing[1:] * (1 - 1e-6)).all()
        assert (closest.distances[1:] <= crossing[1:] + most[1:] / 1024 * (1 + 1e-6)).all()


@each_norm
def test_every_batch_size_and_order_gives_the_same_images(norm, rows, batch):
    model = rows(SHAPE)
    images, _ = batch(12)
    labels, ids = model(images).argmax(dim=1), torch.arange(12)
    attack = FMN(norm=norm, steps=30)
    whole = attack.minimum(model, images, labels, random=ImageRandom(7, ids))
    assert whole.found.all()
    for size in (1, 5):
        parts = [attack.minimum(model, images[part], labels[part]) for part in ids.split(size)]
        assert torch.equal(torch.cat([part.adversarial for part in parts]), whole.adversarial)
        assert torch.equal(torch.cat([part.distances for part in parts]), whole.distances)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order]), whole.adversarial[order])


@each_norm
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_comes_back(norm, double, rows, batch):
    images, _ = batch(6)
    images = (images.double() if double else images).to(memory_format=torch.channels_last)
    model = rows(SHAPE).train()
    labels = model(images).argmax(dim=1)
    before = images.clone()
    with torch.no_grad():
        closest = FMN(norm=norm, steps=10).minimum(model, images, labels)
        again = FMN(norm=norm, steps=10)(model, images, labels)
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
    assert closest.norm == norm


@each_norm
def test_awkward_models(norm, batch):
    flat = lambda x: torch.stack((0 * x.sum(dim=(1, 2, 3)) + 1, 0 * x.sum(dim=(1, 2, 3))), dim=1)  # noqa: E731
    images, labels = batch(4)[0], torch.tensor([0, 1, 0, 1])
    closest = FMN(norm=norm, steps=10).minimum(flat, images, labels)
    assert closest.distances.tolist() == [torch.inf, 0, torch.inf, 0]
    assert torch.equal(closest.adversarial, images)
    broken = lambda x: torch.stack((x.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * torch.nan), dim=1)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="logits or gradients of 4 of 4 images were not finite") as caught:
        closest = FMN(norm=norm, steps=10).minimum(broken, images, labels)
    assert caught[0].filename == __file__
    assert closest.distances.isnan().all()
    steep = lambda x: torch.stack((1e38 * (x - 0.6).sum(dim=(1, 2, 3)), 0 * x[:, 0, 0, 0]), dim=1)  # noqa: E731
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logits or gradients of . of 4 images were not finite", RuntimeWarning)
        closest = FMN(norm=norm, steps=10).minimum(steep, images, labels)
    assert closest.adversarial.isfinite().all()


def test_an_empty_batch(rows):
    nothing = torch.zeros(0, *SHAPE)
    closest = FMN().minimum(rows(SHAPE), nothing, torch.zeros(0, dtype=torch.int64), starts=nothing)
    assert closest.adversarial.shape == (0, *SHAPE)
    assert closest.distances.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"norm": "L3"}, ValueError, 'FMN: norm must be "L0", "L1", "L2" or "Linf", got \'L3\''),
        ({"norm": 2}, ValueError, "FMN: norm must be"),
        ({"steps": 0}, ValueError, "FMN: steps must be at least 1, got 0"),
        ({"step_size": 0.0}, ValueError, "FMN: step_size must be above 0"),
        ({"gamma": 0}, ValueError, "FMN: gamma must be above 0 and below 1"),
        ({"final_gamma": 1}, ValueError, "FMN: final_gamma must be above 0 and below 1"),
        ({"loss": None}, TypeError, "FMN: loss must be a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        FMN(**settings)


@pytest.mark.parametrize(
    ("starts", "error", "message"),
    [
        ([0.5], TypeError, "starts must be a torch.Tensor of images, or None, got list"),
        (torch.zeros(2, *SHAPE), ValueError, "starts must be one image per image"),
        (torch.zeros(3, *SHAPE, dtype=torch.float64), ValueError, "starts must be one image per image"),
        (torch.full((3, *SHAPE), 2.0), ValueError, r"starts are images as well: images must lie in \[0, 1\]"),
    ],
)
def test_wrong_starts_are_refused(starts, error, message, rows, batch):
    with pytest.raises(error, match=message):
        FMN()(rows(SHAPE), *batch(3), starts=starts)


def test_wrong_calls_are_refused(rows, batch):
    images, labels = batch(3)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        FMN()(rows(SHAPE), images * 255, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        FMN(steps=2)(rows(SHAPE), images, labels + 3)


@pytest.mark.gpu
@each_norm
def test_the_gpu_finds_the_same_and_is_not_asked_in_the_loop(norm, rows, batch):
    images, _ = batch(32)
    model = rows(SHAPE)
    labels = model(images).argmax(dim=1)
    here = FMN(norm=norm).minimum(model, images, labels)
    model, images, labels = model.cuda(), images.cuda(), labels.cuda()
    there = FMN(norm=norm).minimum(model, images, labels)
    torch.testing.assert_close(there.distances.cpu(), here.distances, rtol=1e-3, atol=0)
    counts = []
    for steps in (10, 30):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                FMN(norm=norm, steps=steps)(model, images, labels)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert counts[0] == counts[1]
