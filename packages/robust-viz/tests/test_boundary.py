import math
import warnings

import pytest
import torch
from robust_attacks import ImageRandom
from robust_viz import decision_boundaries, decision_boundary
from torch import nn


def test_a_linear_model_gives_half_planes_at_the_distance_of_the_margin(linear):
    model, image, margin = linear
    length = float(model.weight.detach().norm())
    distance = margin / length
    boundary = decision_boundary(model, image, 0, extent=2.9 * distance, points=31, clip=False)
    assert boundary.label == boundary.prediction == 0
    expected = (boundary.offsets > distance).long()[:, None].expand(31, 31)  # rows go along the gradient
    assert torch.equal(boundary.classes, expected)
    torch.testing.assert_close(
        boundary.margins, (margin - length * boundary.offsets)[:, None].expand(31, 31), rtol=1e-9, atol=1e-9
    )
    tolerance = 2.9 * distance / 1000
    assert distance <= boundary.along_gradient[0] <= distance + tolerance
    assert boundary.along_gradient[1] == math.inf
    assert boundary.along_side == (math.inf, math.inf)
    assert distance <= boundary.least <= distance + tolerance
    assert boundary.least_at == pytest.approx((0, distance), abs=distance / 10)  # rays at one degree are as near
    assert boundary.share == pytest.approx(21 / 31)  # the offsets are -15..15 times 0.193 distances
    assert boundary.classes_met == 2


def test_in_linf_the_axes_read_as_eps(linear):
    model, image, margin = linear
    distance = margin / float(model.weight.detach().abs().sum())  # Linf distance of a hyperplane: margin / L1 norm
    boundary = decision_boundary(model, image, 0, extent=2.5 * distance, norm="linf", clip=False)
    assert distance <= boundary.along_gradient[0] <= distance * 1.0026
    assert distance <= boundary.least <= distance * 1.0026
    along, across = boundary.least_at[1], boundary.least_at[0]
    moved = along * boundary.ascent + across * boundary.side
    assert float(moved.abs().max()) == pytest.approx(boundary.least, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 3), (1, 1, 2), (4, 3, 3)], ids=str)
def test_directions_are_orthogonal_and_of_norm_one(norm, shape):
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(math.prod(shape), 3, generator=random)
    image = torch.rand(shape, generator=random)
    boundary = decision_boundary(lambda x: x.flatten(1) @ weight, image, norm=norm, points=3, extent=0.1)
    order = 2 if norm == "l2" else math.inf
    for direction in (boundary.ascent, boundary.side):
        assert float(torch.linalg.vector_norm(direction.double(), order)) == pytest.approx(1, abs=1e-5)
    assert abs(float((boundary.ascent * boundary.side).sum())) < 1e-5
    if norm == "linf":
        assert set(boundary.ascent.flatten().tolist()) <= {-1.0, 0.0, 1.0}
        assert set(boundary.side.flatten().tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_ascent_is_that_of_the_loss_and_not_of_the_logit(network, norm):
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    boundary = decision_boundary(network, image, 3, norm=norm, points=3, extent=0.1)
    network.eval()
    leaf = image.clone().requires_grad_()
    nn.functional.cross_entropy(network(leaf[None]), torch.tensor([3])).backward()
    expected = leaf.grad / leaf.grad.norm() if norm == "l2" else leaf.grad.sign()
    torch.testing.assert_close(boundary.ascent, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [True, False])
def test_every_point_is_what_the_model_says_of_it(network, clip):
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    boundary = decision_boundary(network, image, 1, extent=6.0, points=9, clip=clip)
    network.eval()
    for i, along in enumerate(boundary.offsets.tolist()):
        for j, across in enumerate(boundary.offsets.tolist()):
            point = image + along * boundary.ascent + across * boundary.side
            inside = bool(((point >= 0) & (point <= 1)).all())
            assert inside == bool(boundary.inside[i, j])
            with torch.no_grad():
                logits = network((point.clamp(0, 1) if clip else point)[None])[0].double()
            assert int(logits.argmax()) == int(boundary.classes[i, j])
            margin = logits[1] - torch.cat([logits[:1], logits[2:]]).max()
            torch.testing.assert_close(boundary.margins[i, j], margin, rtol=1e-4, atol=1e-5)
    assert not boundary.inside.all()
    assert boundary.inside[4, 4]


def test_distances_end_where_the_class_changes(network):
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4))
    boundary = decision_boundary(network, image, extent=8.0)
    found = boundary.along_gradient[0]
    assert 0 < found < 8
    network.eval()
    with torch.no_grad():
        for length, same in ((found - 0.009, True), (found, False)):
            point = (image + length * boundary.ascent).clamp(0, 1)
            assert (int(network(point[None]).argmax()) == boundary.label) == same
        across, along = boundary.least_at
        point = (image + across * boundary.side + along * boundary.ascent).clamp(0, 1)
        assert int(network(point[None]).argmax()) != boundary.label
    assert math.hypot(across, along) == pytest.approx(boundary.least)
    assert boundary.least <= min(*boundary.along_gradient, *boundary.along_side)


def test_the_map_does_not_depend_on_the_batch_size(linear, network):
    model, image, _ = linear
    maps = [decision_boundary(model, image, extent=0.3, points=9, batch_size=size) for size in (1, 7, 10_000)]
    for other in maps[1:]:
        assert torch.equal(other.classes, maps[0].classes)
        torch.testing.assert_close(other.margins, maps[0].margins, rtol=1e-12, atol=1e-12)
        assert other.least == maps[0].least
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    maps = [decision_boundary(network, image, extent=3.0, points=9, batch_size=size) for size in (1, 7, 10_000)]
    for other in maps[1:]:
        torch.testing.assert_close(other.margins, maps[0].margins, rtol=1e-4, atol=1e-5)


def test_the_default_extent_is_four_times_the_distance_along_the_gradient_up_to_a_tenth_of_the_longest_change(linear):
    model, image, margin = linear
    distance = margin / float(model.weight.detach().norm())
    assert decision_boundary(model, image, points=3).extent == pytest.approx(4 * distance, rel=1e-4)
    most = 0.1 * math.sqrt(image.numel())
    with torch.no_grad():
        model.bias += 3.0
    assert decision_boundary(model, image, points=3).extent == pytest.approx(most)
    assert decision_boundary(model, image, 1, points=3).extent == pytest.approx(most)  # misclassified
    assert decision_boundary(model, image, points=3, norm="linf").extent <= 0.1


def test_the_least_distance_of_a_curved_boundary_is_that_of_brute_force():
    """The gradient points to a plane at 0.3, but a small disc lies at 0.2 off to the side."""
    image, disc = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64), torch.tensor([-0.12, 0.22], dtype=torch.float64)

    def model(images):
        moved = (images - image).flatten(1)
        plane, outside = 0.3 - moved[:, 0], 4 * ((moved - disc).norm(dim=1) - 0.05)
        margin = torch.minimum(plane, outside)
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)

    extent = 0.8
    boundary = decision_boundary(model, image, 0, extent=extent, clip=False)
    angle = torch.arange(360, dtype=torch.float64) * (2 * math.pi / 360)
    rays = angle.cos()[:, None] * boundary.side.flatten() + angle.sin()[:, None] * boundary.ascent.flatten()
    radii = torch.arange(1, 1001, dtype=torch.float64) * (0.4 / 1000)
    points = (rays[:, None] * radii[None, :, None]).view(-1, 1, 1, 2) + image
    wrong = (model(points).argmax(1) != 0).view(360, 1000).any(0)
    nearest = float(radii[wrong.nonzero()[0]])
    assert nearest == pytest.approx(float(disc.norm()) - 0.05, abs=1e-3)
    assert boundary.least == pytest.approx(nearest, abs=extent / 500)
    assert boundary.least < min(*boundary.along_gradient, *boundary.along_side)


def test_a_misclassified_image_is_at_distance_zero(linear):
    model, image, _ = linear
    boundary = decision_boundary(model, image, 1, extent=0.2)
    assert boundary.prediction == 0
    assert (boundary.least, boundary.along_gradient, boundary.along_side) == (0.0, (0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    "model",
    [
        lambda images: torch.tensor([[5.0, 0.0]]).expand(len(images), 2),
        lambda images: torch.stack([1e4 + images.sum((1, 2, 3)), images.sum((1, 2, 3)) * 0], 1),
    ],
    ids=["constant", "saturated"],
)
def test_a_zero_gradient_gives_a_random_direction_and_a_warning(model, norm):
    with pytest.warns(UserWarning, match="zero gradient"):
        boundary = decision_boundary(model, torch.full((1, 4, 4), 0.5), norm=norm, points=5)
    assert float(torch.linalg.vector_norm(boundary.ascent, 2 if norm == "l2" else math.inf)) == pytest.approx(
        1, rel=1e-5
    )
    assert boundary.least == math.inf
    assert boundary.share == 1


def test_the_model_is_left_as_it_was(network):
    network[0].weight.grad = torch.ones_like(network[0].weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    with torch.no_grad():  # the caller's mode
        boundary = decision_boundary(network, image, points=5)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    assert all(p.grad is None for name, p in network.named_parameters() if name != "0.weight")
    assert all(p.requires_grad for p in network.parameters())
    assert image.grad is None
    assert not boundary.margins.requires_grad


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_that_a_forward_pass_writes_are_as_before(in_place):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, images):
            if in_place:
                self.calls += 1
            else:
                self.calls = self.calls + 1
            return images.flatten(1)[:, :2]

    model = Counts()
    buffer = model.calls
    decision_boundary(model, torch.tensor([[[0.8, 0.5]]]), points=5)
    assert model.calls is buffer
    assert float(buffer) == 0


def test_the_model_is_left_as_it_was_after_an_exception(network):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = network, 0

        def forward(self, images):
            self.calls += 1
            if self.calls == 4:
                raise RuntimeError("no memory left")
            torch.rand(1)  # a model that draws
            return self.inner(images)

    state = torch.get_rng_state()
    model = Fails()
    with pytest.raises(RuntimeError, match="no memory left"):
        decision_boundary(model, torch.full((3, 8, 8), 0.5))
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_works_in_inference_mode_and_with_frozen_parameters(linear):
    model, image, _ = linear
    model.requires_grad_(False)
    with torch.inference_mode():
        boundary = decision_boundary(model, image, points=5)
    assert boundary.least < math.inf
    assert not model.weight.requires_grad


def test_the_same_seed_gives_the_same_picture(network):
    image = torch.full((3, 8, 8), 0.5)
    default = decision_boundary(network, image, points=5, extent=1.0)
    same = decision_boundary(network, image[None], points=5, extent=1.0, random=ImageRandom(0))
    other = decision_boundary(network, image, points=5, extent=1.0, random=ImageRandom(1))
    assert default.seed == 0
    assert torch.equal(default.side, same.side)
    assert torch.equal(default.classes, same.classes)
    assert other.seed == 1
    assert not torch.equal(default.side, other.side)
    assert torch.equal(default.ascent, other.ascent)


def test_several_models_and_images_share_one_extent(linear, network):
    _model, _, _ = linear
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    models = {"network": network, "sum": lambda x: torch.stack([x.sum((1, 2, 3)) - 90, x[:, 0, 0, 0]], 1)}
    grid = decision_boundaries(models, images, torch.tensor([0, 1]), points=5)
    assert grid.models == ("network", "sum")
    cells = [cell for row in grid.boundaries for cell in row]
    assert len({cell.extent for cell in cells}) == 1
    assert [[cell.label for cell in row] for row in grid.boundaries] == [[0, 0], [1, 1]]
    alone = [
        decision_boundary(m, images[i], i, points=5, random=ImageRandom(0, torch.tensor([i])))
        for i in range(2)
        for m in models.values()
    ]
    assert cells[0].extent == max(boundary.extent for boundary in alone)
    again = decision_boundary(
        network, images[1], 1, points=5, extent=cells[0].extent, random=ImageRandom(0, torch.tensor([1]))
    )
    assert torch.equal(again.classes, grid.boundaries[1][0].classes)
    assert again.least == grid.boundaries[1][0].least
    assert network.training


GOOD = torch.full((1, 4, 4), 0.5)


def two(images):
    return images.flatten(1)[:, :2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: decision_boundary(two, [[0.5]]), TypeError, "torch.Tensor .C, H, W., got list"),
        (lambda: decision_boundary(two, (GOOD * 255).byte()), TypeError, "got torch.uint8: pass image / 255"),
        (lambda: decision_boundary(two, GOOD[0]), ValueError, r"\(C, H, W\), got \(4, 4\)"),
        (lambda: decision_boundary(two, GOOD.expand(2, 1, 4, 4)), ValueError, "decision_boundaries takes several"),
        (lambda: decision_boundary(two, GOOD[:, :1, :1]), ValueError, "single pixel"),
        (lambda: decision_boundary(two, GOOD * 4), ValueError, r"lie in \[0, 1\], got \[2, 2\].*inside the model"),
        (lambda: decision_boundary(two, GOOD - 1), ValueError, r"lie in \[0, 1\], got \[-0.5, -0.5\]"),
        (lambda: decision_boundary(two, GOOD * math.nan), ValueError, r"got \[nan, nan\]"),
        (lambda: decision_boundary(two, GOOD, 2), ValueError, r"label must lie in 0..1, .*got 2"),
        (lambda: decision_boundary(two, GOOD, -1), ValueError, "label must lie in"),
        (lambda: decision_boundary(two, GOOD, extent=0.0), ValueError, "extent must be a positive number"),
        (lambda: decision_boundary(two, GOOD, extent=math.inf), ValueError, "extent must be a positive number"),
        (lambda: decision_boundary(two, GOOD, points=2), ValueError, "points must be at least 3"),
        (lambda: decision_boundary(two, GOOD, norm="l1"), ValueError, "norm must be"),
        (lambda: decision_boundary(two, GOOD, batch_size=0), ValueError, "batch_size must be at least 1"),
        (lambda: decision_boundary(lambda x: (two(x),), GOOD), TypeError, "it returned a tuple"),
        (lambda: decision_boundary(lambda x: two(x)[:, 0], GOOD), ValueError, r"it returned shape \(1,\)"),
        (lambda: decision_boundary(lambda x: two(x) * math.nan, GOOD), ValueError, "NaN or infinite"),
        (lambda: decision_boundary(lambda x: two(x).argmax(1), GOOD), TypeError, "torch.int64 tensor"),
        (lambda: decision_boundaries({}, GOOD[None]), ValueError, "at least one model"),
        (lambda: decision_boundaries({"m": two}, GOOD), ValueError, "N >= 1"),
        (lambda: decision_boundaries({"m": two}, GOOD[None], torch.tensor([0, 1])), ValueError, "one per image"),
        (lambda: decision_boundaries({"m": two}, GOOD[None] + 1), ValueError, r"lie in \[0, 1\]"),
    ],
)
def test_mistakes_are_told(call, error, message):
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_model_gives_the_same_map(linear):
    model, image, _ = linear
    here = decision_boundary(model, image, points=9)
    there = decision_boundary(model.cuda(), image.cuda(), points=9)
    assert there.classes.device.type == "cpu"
    torch.testing.assert_close(there.margins, here.margins, rtol=1e-6, atol=1e-6)
    assert there.least == pytest.approx(here.least, rel=0.01)
