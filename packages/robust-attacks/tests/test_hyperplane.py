"""Exactness: the nearest points agree with slow float64 methods that sort or bisect, and obey laws of projections."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_attacks.hyperplane import Hyperplanes, lengths, sums

NORMS = ("Linf", "L2", "L1")
each_norm = pytest.mark.parametrize("norm", NORMS)
ORDERS = {"Linf": torch.inf, "L2": 2, "L1": 1}
# From no way to go at all, over the usual, to where the box is nearly used up and beyond.
SHARES = (0.0, 1e-9, 1e-4, 0.01, 0.1, 0.4, 0.8, 0.97, 1.5, 1e4)


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64), scales=(1e-25, 1e-3, 1.0, 1e6, 1e25), shares=SHARES):
    """Normals with zeros and ties, points on faces of the box, and excesses as shares of what the box allows."""
    count, pixels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 7, 16, 48, 130]))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def random(*shape, make=torch.rand):
        return make(shape, generator=generator, dtype=dtype)

    normals = random(count, pixels, make=torch.randn) * random(count, pixels) ** draw(st.sampled_from([0, 1, 8]))
    if draw(st.booleans()):
        normals = (4 * normals).round() / 4
    normals = torch.where(random(count, pixels) < draw(st.sampled_from([0.0, 0.3])), 0, normals)
    normals = normals * draw(st.sampled_from(scales))
    points = random(count, pixels)
    points = torch.where(random(count, pixels) < draw(st.sampled_from([0.0, 0.4, 1.0])), points.round(), points)
    sides = random(count, make=torch.randn).sign()
    reach = (normals.abs().double() * rooms(normals.double(), points.double(), sides)).sum(dim=1)
    return normals, points, sides * reach * draw(st.sampled_from(shares))


def rooms(normals, points, sides):
    return torch.where(sides[:, None] * normals < 0, 1 - points, points)


def slow(normal, point, excess, norm):
    """The nearest point of one row in float64: L1 by sorting, the others by bisection. None: the plane passes by."""
    normal, point = normal.double(), point.double()
    side, wanted = (1.0 if excess >= 0 else -1.0), abs(float(excess))
    room = torch.where(side * normal < 0, 1 - point, point) * (normal != 0)
    size = normal.abs()
    if norm == "L1":
        order = size.argsort(descending=True, stable=True)
        size, room = size[order], room[order]
        before = (size * room).cumsum(0) - size * room
        share = ((wanted - before) / (size * room)).nan_to_num(nan=0.0).clamp(0, 1) * room
        weights, tied = size.unique(return_inverse=True)  # pixels of the same weight share alike
        theirs, all_of_it = (torch.zeros_like(weights).index_add(0, tied, part) for part in (share, room))
        share = room * (theirs / all_of_it.clamp(min=1e-300))[tied]
        change = torch.zeros_like(point)
        change[order] = share
    else:
        size = size / size.max().clamp(min=1e-300)
        wanted = wanted / float(normal.abs().max().clamp(min=1e-300))
        grow = torch.ones_like(size) if norm == "Linf" else size
        low, high = 1e-60, 1e40
        for _ in range(70):  # first of the exponent
            middle = low**0.5 * high**0.5
            enough = (size * torch.minimum(middle * grow, room)).sum() >= wanted
            low, high = (low, middle) if enough else (middle, high)
        change = torch.minimum(high * grow, room)
    return point - side * normal.sign() * change


@each_norm
@given(problem=problems())
def test_it_is_the_nearest_point_that_a_slow_float64_method_finds(norm, problem):
    normals, points, excess = problem
    nearest, length = Hyperplanes(normals, norm).nearest(points, excess)
    assert nearest.dtype == points.dtype
    assert length.dtype == torch.float64
    atol = 2e-7 if points.dtype == torch.float32 else 1e-9
    for row in range(len(points)):
        expected = slow(normals[row], points[row], excess[row], norm)
        torch.testing.assert_close(nearest[row].double(), expected, rtol=0, atol=atol)
        distance = (expected - points[row]).norm(ORDERS[norm])
        torch.testing.assert_close(length[row], distance, rtol=1e-6, atol=atol * points.shape[1] ** 0.5)


@each_norm
@pytest.mark.parametrize("share", SHARES)
def test_it_is_exact_for_the_3072_pixels_of_an_image(norm, share):
    pixels = 3072
    generator = torch.Generator().manual_seed(1)
    normals = torch.randn(2, pixels, generator=generator) * torch.rand(2, pixels, generator=generator) ** 2
    points = (1.6 * torch.rand(2, pixels, generator=generator) - 0.3).clamp(0, 1)
    sides = torch.tensor([1.0, -1.0])
    reach = (normals.abs().double() * rooms(normals.double(), points.double(), sides)).sum(dim=1)
    for locked in (False, True):
        nearest, length = Hyperplanes(normals, norm, locked).nearest(points, share * sides * reach)
        for row in range(2):
            expected = slow(normals[row], points[row], share * sides[row] * reach[row], norm)
            # Without waiting for the device, no row is done again in float64: rounding shows near the corner.
            atol = 1e-6 if locked and share > 0.9 else 2e-7
            torch.testing.assert_close(nearest[row].double(), expected, rtol=0, atol=atol)
            assert float(length[row]) == pytest.approx(float((expected - points[row]).norm(ORDERS[norm])), abs=1e-5)


@each_norm
@given(problem=problems())
def test_it_lies_in_the_box_and_on_the_plane_or_else_in_the_corner(norm, problem):
    normals, points, excess = problem
    nearest, _ = Hyperplanes(normals, norm).nearest(points, excess)
    assert (nearest >= 0).all()
    assert (nearest <= 1).all()
    sides = torch.where(excess >= 0, 1.0, -1.0)
    room = rooms(normals.double(), points.double(), sides)
    reach = (normals.abs().double() * room).sum(dim=1)
    left = (normals.double() * (nearest.double() - points)).sum(dim=1) + excess
    by = excess.abs() >= reach * (1 + 1e-6)
    rounding = normals.abs().double().sum(dim=1) * (2e-7 if points.dtype == torch.float32 else 1e-14)
    assert (left.abs() <= torch.where(by, (excess.abs() - reach) * (1 + 1e-9), 0) + rounding).all()
    corner = torch.where(normals == 0, points, (points - sides[:, None] * normals.sign()).clamp(0, 1).to(points.dtype))
    assert torch.equal(nearest[by], corner[by])


@each_norm
@given(problem=problems(scales=(1.0,), shares=(1e-4, 0.1, 0.6)), seed=st.integers(0, 2**32))
def test_no_other_point_of_plane_and_box_is_nearer(norm, problem, seed):
    """Other such points: the nearest ones to random points of the box."""
    normals, points, excess = problem
    planes = Hyperplanes(normals, norm)
    nearest, length = planes.nearest(points, excess)
    others = torch.rand(points.shape, generator=torch.Generator().manual_seed(seed), dtype=points.dtype)
    others = torch.lerp(nearest, others, 0.3)
    theirs, _ = planes.nearest(others, (normals.double() * (others.double() - nearest)).sum(dim=1))
    assert (length <= (theirs.double() - points).norm(ORDERS[norm], dim=1) + 1e-5).all()


@each_norm
@given(problem=problems(), exponent=st.sampled_from([-20, -1, 4]))
def test_neither_scale_nor_order_nor_reflection_of_pixels_matters(norm, problem, exponent):
    normals, points, excess = problem
    nearest, length = Hyperplanes(normals, norm).nearest(points, excess)
    scaled = torch.ldexp(normals, torch.tensor(exponent))
    if torch.equal(scaled * 2.0**-exponent, normals):  # nothing has fallen below the smallest float
        again = Hyperplanes(scaled, norm).nearest(points, excess * 2.0**exponent)
        assert torch.equal(again[0], nearest)
        assert torch.equal(again[1], length)
    flipped, _ = Hyperplanes(normals.flip(1), norm).nearest(points.flip(1), excess)
    torch.testing.assert_close(flipped.flip(1), nearest, rtol=0, atol=4e-7)
    reflected, _ = Hyperplanes(-normals, norm).nearest(1 - points, excess)
    if torch.equal(1 - (1 - points), points):
        torch.testing.assert_close(1 - reflected, nearest, rtol=0, atol=4e-7)


@each_norm
@pytest.mark.parametrize("locked", [False, True])
@settings(max_examples=15)
@given(problem=problems())
def test_rows_do_not_influence_each_other(norm, locked, problem):
    normals, points, excess = problem
    nearest, length = Hyperplanes(normals, norm, locked).nearest(points, excess)
    for row in range(len(points)):
        only = slice(row, row + 1)
        alone = Hyperplanes(normals[only], norm, locked).nearest(points[only], excess[only])
        assert torch.equal(alone[0], nearest[only])
        assert torch.equal(alone[1], length[only])


@each_norm
@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_take_few_steps_do_not_go_on_with_those_that_take_many(norm, locked, dtype):
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(24, 768, generator=generator, dtype=dtype)
    normals = normals * torch.rand(24, 768, generator=generator, dtype=dtype) ** torch.arange(0, 12, 0.5)[:, None]
    points = torch.rand(24, 768, generator=generator, dtype=dtype)
    reach = (normals.abs().double() * rooms(normals.double(), points.double(), torch.ones(24))).sum(dim=1)
    excess = reach * torch.rand(24, generator=generator) ** torch.arange(24).remainder(5)
    nearest, length = Hyperplanes(normals, norm, locked).nearest(points, excess)
    for row in range(24):
        only = slice(row, row + 1)
        alone = Hyperplanes(normals[only], norm, locked).nearest(points[only], excess[only])
        assert torch.equal(alone[0], nearest[only])
        assert torch.equal(alone[1], length[only])


@each_norm
@given(problem=problems(scales=(1e-3, 1.0, 1e6), shares=(0.0, 1e-9, 1e-4, 0.01, 0.1, 0.4, 1.5)))
def test_without_waiting_for_the_device_it_comes_to_the_same(norm, problem):
    normals, points, excess = problem
    expected = Hyperplanes(normals, norm, locked=False).nearest(points, excess)
    found = Hyperplanes(normals, norm, locked=True).nearest(points, excess)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=3e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)


@each_norm
@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("excess", [-1e30, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1e30])
def test_points_stay_where_the_normal_is_zero_and_move_elsewhere(norm, locked, excess):
    normals = torch.zeros(3, 48)
    normals[1, 5] = 2.0
    points = torch.full((3, 48), 0.75)
    points[2] = 1.0
    nearest, length = Hyperplanes(normals, norm, locked).nearest(points, torch.full((3,), excess))
    expected = points.clone()
    expected[1, 5] = min(max(0.75 - excess / 2, 0.0), 1.0)
    torch.testing.assert_close(nearest, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        length, torch.tensor([0, abs(float(expected[1, 5]) - 0.75), 0]).double(), rtol=0, atol=1e-7
    )


@each_norm
@pytest.mark.parametrize("locked", [False, True])
def test_it_leaves_what_it_is_given_and_may_be_asked_twice(norm, locked):
    generator = torch.Generator().manual_seed(0)
    given_to_it = [torch.randn(3, 64, generator=generator), torch.rand(3, 64, generator=generator), torch.ones(3)]
    before = [tensor.clone() for tensor in given_to_it]
    planes = Hyperplanes(given_to_it[0], norm, locked)
    one, two = (planes.nearest(*given_to_it[1:]) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert all(torch.equal(*pair) for pair in zip(given_to_it, before, strict=True))


@each_norm
@pytest.mark.parametrize("pixels", [1, 7, 784, 3072])
def test_lengths_are_norms_and_sums_nearly_exact(norm, pixels):
    changes = torch.randn(5, pixels, generator=torch.Generator().manual_seed(0))
    expected = changes.double().norm(ORDERS[norm], dim=1)
    torch.testing.assert_close(lengths(norm, changes.clone()), expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(sums(changes.abs()), changes.double().abs().sum(dim=1), rtol=5e-8, atol=0)


@pytest.mark.gpu
@each_norm
def test_the_gpu_finds_the_same_without_making_the_host_wait(norm):
    generator = torch.Generator().manual_seed(0)
    normals, points = torch.randn(32, 3072, generator=generator), torch.rand(32, 3072, generator=generator)
    excess = 40 * torch.randn(32, generator=generator)
    expected = Hyperplanes(normals, norm).nearest(points, excess)
    there = [tensor.cuda() for tensor in (normals, points, excess)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        nearest, length = Hyperplanes(there[0], norm).nearest(*there[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(nearest.cpu(), expected[0], rtol=0, atol=3e-7)
    torch.testing.assert_close(length.cpu(), expected[1], rtol=1e-6, atol=1e-7)
