"""Exactness: the projections agree with slow float64 methods that sort or bisect, and obey the laws of projections."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import L1, L2, Linf, _host

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
DTYPES = (torch.float32, torch.float64)
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())


@st.composite
def batches(draw, dtypes=DTYPES):
    """Images with saturated pixels, candidates from near to far outside, and a radius for every image."""
    count, channels, height, width = draw(st.tuples(*[st.integers(1, high) for high in (5, 3, 4, 5)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(dtypes))
    shape = (count, channels, height, width)

    def random(shape, normal=False):
        make = torch.randn if normal else torch.rand
        return make(shape, generator=generator, dtype=dtype)

    images = random(shape)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    images = torch.where(random(shape) < share, images.round(), images)
    spread = draw(st.sampled_from([0.0, 1e-4, 0.05, 0.5, 3.0, 1e3]))
    candidates = images + spread * random(shape, normal=True)
    if draw(st.booleans()):
        candidates = (candidates * 4).round() / 4  # ties, and entries that do not move
    unit = draw(st.sampled_from([0.0, 1e-6, 0.01, 0.3, 1.0]))
    eps = (random((count,)) * unit).tolist()
    return images, candidates, eps if draw(st.booleans()) else eps[0]


def radii(threat, images):
    return torch.as_tensor(threat.radii(images), dtype=torch.float64).expand(len(images), 1, 1, 1).flatten().tolist()


def bisected(low, high, excess):
    """Where a falling or rising function of one number turns from negative to not negative."""
    for _ in range(2000):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def nearest_linf(image, candidate, eps):
    return candidate.clamp(image - eps, image + eps).clamp(0, 1)


def nearest_l2(image, candidate, eps):
    """Bisection on the multiplier of the offset: no Newton, no bound on it but 0 and 1."""
    offset = candidate - image
    moved = lambda factor: (image + factor * offset).clamp(0, 1)  # noqa: E731
    if (moved(1.0) - image).norm() <= eps:
        return moved(1.0)
    return moved(bisected(0.0, 1.0, lambda factor: (moved(factor) - image).norm() - eps))


def nearest_l1(image, candidate, eps):
    """Sort all kinks of the falling function h, find the two between which it passes eps, interpolate."""
    offset = candidate - image
    size = offset.abs()
    room = torch.where(offset > 0, 1 - image, image)
    length = lambda cut: torch.minimum((size - cut).clamp(min=0), room).sum()  # noqa: E731
    if length(0.0) <= eps:
        return candidate.clamp(0, 1)
    kinks = torch.cat((torch.zeros(1), size.flatten(), (size - room).flatten())).clamp(min=0).unique()
    lengths = torch.stack([length(kink) for kink in kinks])
    after = int((lengths <= eps).nonzero()[0])
    slope = (lengths[after - 1] - lengths[after]) / (kinks[after] - kinks[after - 1])
    cut = kinks[after] - (eps - lengths[after]) / slope
    return image + offset.sign() * torch.minimum((size - cut).clamp(min=0), room)


ORACLES = {"Linf": nearest_linf, "L2": nearest_l2, "L1": nearest_l1}


@each_threat
@given(batch=batches())
def test_it_is_the_nearest_point_that_a_slow_float64_method_finds(make, batch):
    images, candidates, eps = batch
    threat = make(eps=eps)
    found = threat.project(images, candidates)
    assert found.dtype == images.dtype
    for row, radius in enumerate(radii(threat, images)):
        expected = ORACLES[threat.name](images[row].double(), candidates[row].double(), radius)
        # float32: half a unit in the last place of a pixel, and as much as the projection aims inside the ball: under
        # L1 that grows with the root of the number of pixels, and one pixel may have to bear it all.
        aimed = 2.0**-24 * images[row].numel() ** 0.5 if threat.name == "L1" else 0.0
        atol = max(1.6e-7, 1.01 * 2.0**-24 + aimed) if images.dtype == torch.float32 else 1e-9
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("make", [L1, L2], ids=["L1", "L2"])
@given(batch=batches())
def test_it_is_the_same_point_where_the_host_must_not_look(make, batch):
    images, candidates, eps = batch
    threat = make(eps=eps)
    expected = threat.project(images, candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "can_look", lambda tensor: False)
        found = threat.project(images, candidates)
    assert (threat.distance(images, found) <= torch.tensor(radii(threat, images), dtype=torch.float64)).all()
    farthest = float((candidates - images).abs().max())  # of which the fixed passes find 2^-32 or 2^-64
    atol = 4e-7 + 2.0**-31 * farthest if images.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("pixels", [28 * 28, 3 * 224 * 224])
@pytest.mark.parametrize("make", [L1, L2], ids=["L1", "L2"])
def test_it_is_exact_and_reaches_eps_for_large_images_too(make, pixels):
    generator = torch.Generator().manual_seed(pixels)
    images = torch.rand((1, 1, 1, pixels), generator=generator, dtype=torch.float64)
    candidates = images + 0.5 * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    threat = make(eps=0.2 * pixels**0.5 if make is L2 else 0.1 * pixels)
    found = threat.project(images, candidates)
    if make is L2:
        expected = nearest_l2(images, candidates, threat.eps)
    else:  # a third method, since all kinks times all pixels are too many
        size = (candidates - images).abs()
        room = torch.where(candidates > images, 1 - images, images)
        left = lambda cut: torch.minimum((size - cut).clamp(min=0), room)  # noqa: E731
        cut = bisected(0.0, float(size.max()), lambda cut: threat.eps - left(cut).sum())
        expected = images + (candidates - images).sign() * left(cut)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert float(threat.distance(images, found)) == pytest.approx(threat.eps, rel=1e-11)


@each_threat
@given(batch=batches())
def test_it_lands_inside_without_any_tolerance(make, batch):
    images, candidates, eps = batch
    threat = make(eps=eps)
    found = threat.project(images, candidates)
    distance = threat.distance(images, found)
    assert distance.dtype == torch.float64
    assert (distance <= torch.tensor(radii(threat, images), dtype=torch.float64)).all()
    assert ((found >= 0) & (found <= 1)).all()


@each_threat
@given(batch=batches())
def test_doing_it_twice_changes_nothing(make, batch):
    images, candidates, eps = batch
    once = make(eps=eps).project(images, candidates)
    assert torch.equal(make(eps=eps).project(images, once), once)


@each_threat
@given(batch=batches(), share=st.floats(0, 1))
def test_a_point_inside_stays(make, batch, share):
    images, candidates, eps = batch
    threat = make(eps=eps)
    inside = (images + share * (threat.project(images, candidates) - images)).clamp(0, 1)
    fits = threat.distance(images, inside) <= torch.tensor(radii(threat, images), dtype=torch.float64)
    inside = torch.where(fits[:, None, None, None], inside, images)
    assert torch.equal(threat.project(images, inside), inside)


@each_threat
@given(batch=batches(), other=batches())
def test_what_is_cut_off_points_away_from_every_inside_point(make, batch, other):
    """The variational inequality <v - P(v), u - P(v)> <= 0, for inside points u near the corners and the image."""
    images, candidates, eps = batch
    threat = make(eps=eps)
    found = threat.project(images, candidates).double()
    spread = float((candidates - images).abs().max())
    for scale in (0.0, 0.1, 1.0, 10.0):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
        inside = threat.project(images, images + scale * noise).double()
        products = ((candidates.double() - found) * (inside - found)).sum(dim=(1, 2, 3))
        assert float(products.max()) <= 1e-6 * (1 + spread) * images[0].numel() ** 0.5


@each_threat
@given(batch=batches(), seed=st.integers(0, 2**32))
def test_it_never_moves_two_points_apart(make, batch, seed):
    images, candidates, eps = batch
    threat = make(eps=eps)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=images.dtype)
    others = candidates + 0.1 * noise
    one, two = threat.project(images, candidates), threat.project(images, others)
    before = (candidates.double() - others).flatten(1).norm(dim=1)
    after = (one.double() - two).flatten(1).norm(dim=1)
    assert (after <= before + 1.2e-7 * images[0].numel() ** 0.5).all()


@each_threat
@given(batch=batches(), more=st.floats(0, 0.5))
def test_a_larger_ball_lets_the_point_go_farther(make, batch, more):
    images, candidates, _ = batch
    small, large = make(eps=0.2), make(eps=0.2 + more)
    near, far = small.project(images, candidates), large.project(images, candidates)
    slack = 1.2e-7 * images[0].numel()
    assert (small.distance(images, near) <= small.distance(images, far) + slack).all()
    left = [(candidates.double() - found).flatten(1).norm(dim=1) for found in (near, far)]
    assert (left[1] <= left[0] + slack).all()


@each_threat
@given(batch=batches(dtypes=(torch.float64,)), seed=st.integers(0, 2**32))
def test_it_does_not_know_the_order_of_pixels_nor_black_from_white(make, batch, seed):
    images, candidates, eps = batch
    threat = make(eps=eps)
    found = threat.project(images, candidates)
    order = torch.randperm(images.shape[3], generator=torch.Generator().manual_seed(seed))
    permuted = threat.project(images[..., order], candidates[..., order])
    torch.testing.assert_close(permuted, found[..., order], rtol=0, atol=1e-9)
    torch.testing.assert_close(threat.project(1 - images, 1 - candidates), 1 - found, rtol=0, atol=1e-9)


@each_threat
@given(batch=batches())
def test_images_do_not_see_each_other(make, batch):
    images, candidates, eps = batch
    threat = make(eps=eps)
    together = threat.project(images, candidates)
    for row in range(len(images)):
        only = torch.tensor([row])
        alone = threat.select(only).project(images[only], candidates[only])
        assert torch.equal(alone[0], together[row])


@each_threat
@given(batch=batches())
def test_a_projector_is_a_projection_with_its_images_fixed(make, batch):
    images, candidates, eps = batch
    threat = make(eps=eps)
    project = threat.projector(images)
    before = images.clone(), candidates.clone()
    for points in (candidates, images, -candidates):
        assert torch.equal(project(points), threat.project(images, points))
    assert torch.equal(images, before[0])
    assert torch.equal(candidates, before[1])


@each_threat
def test_candidates_may_be_finer_than_the_images(make):
    """A float64 candidate for float32 images is rounded only once, at the end."""
    images = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    candidates = images.double() + torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    threat = make(eps=0.1)
    found = threat.project(images, candidates)
    assert found.dtype == torch.float32
    assert (threat.distance(images, found) <= 0.1).all()


@pytest.mark.parametrize("eps", [8 / 255, 1 / 3, 0.1, 2 / 255, 1.0, 1e-9, [8 / 255, 0.1, 1 / 3, 1e-3]])
def test_the_bounds_of_linf_are_the_last_floats_inside(eps):
    """Zero tolerance in float64; and the next float32 number outwards would be too far."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((4, 1, 100, 100), generator=generator)
    threat = Linf(eps=eps)
    limit = torch.as_tensor(radii(threat, images), dtype=torch.float64)[:, None, None, None]
    for outwards in (-2.0, 2.0):
        found = threat.project(images, torch.full_like(images, outwards))
        assert ((found.double() - images.double()).abs() <= limit).all()
        beyond = torch.nextafter(found, torch.tensor(outwards))
        free = (found > 0) & (found < 1)
        assert ((beyond.double() - images.double()).abs() > limit)[free].all()


@pytest.mark.parametrize("make", [L1, L2], ids=["L1", "L2"])
def test_a_ball_larger_than_the_box_cuts_nothing(make):
    images = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    candidates = images + torch.linspace(-9, 9, 48).reshape(1, 3, 4, 4)
    assert torch.equal(make(eps=1e6).project(images, candidates), candidates.clamp(0, 1))


@each_threat
def test_strided_and_channels_last_images_give_the_same(make):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 3, 5, 4), generator=generator)
    candidates = torch.rand((2, 3, 5, 4), generator=generator)
    found = make(eps=0.2).project(images, candidates)
    strange = make(eps=0.2).project(
        images.contiguous(memory_format=torch.channels_last), candidates.transpose(2, 3).contiguous().transpose(2, 3)
    )
    torch.testing.assert_close(strange, found, rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("far", [1e6, 1e20, 1e39, 1e160, 1e200, 1e308])
@pytest.mark.parametrize("make", [L1, L2], ids=["L1", "L2"])
@pytest.mark.parametrize("kind", ["all", "one", "noise"])
def test_candidates_far_away_come_back_inside(make, far, kind):
    """Squares of 1e160 leave float64: the search for the root must end all the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((3, 1, 4, 5), generator=generator, dtype=torch.float64)
    noise = torch.rand(images.shape, generator=generator, dtype=torch.float64) - 0.5
    offsets = {"all": torch.full_like(images, far), "one": noise.clone(), "noise": noise * far}[kind]
    offsets[:, 0, 1, 1] = far
    threat = make(eps=0.9)
    found = threat.project(images, images + offsets)
    assert found.isfinite().all()
    assert (threat.distance(images, found) <= 0.9).all()
    if far == 1e308:  # inside is all that is promised
        return
    if make is L2 or kind == "one":
        torch.testing.assert_close(threat.distance(images, found), torch.full((3,), 0.9, dtype=torch.float64))
    if make is L2:
        free = (found > 0) & (found < 1)  # there the offset is a multiple of the candidate's
        shares = torch.where(free, (found - images) / (offsets / far), torch.nan).flatten(1)
        assert (shares.nan_to_num(0).amax(dim=1) <= shares.nan_to_num(torch.inf).amin(dim=1) * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [L1, L2], ids=["L1", "L2"])
def test_candidates_that_are_not_finite_are_refused(make, bad, dtype):
    images = torch.full((2, 1, 2, 2), 0.5, dtype=dtype)
    for eps in (0.1, 1e6):
        candidates = images.clone()
        candidates[1, 0, 1, 0] = bad
        with pytest.raises(ValueError, match="candidates must be finite, got NaN or infinite pixels"):
            make(eps=eps).project(images, candidates)


@each_threat
@given(batch=batches(dtypes=(torch.float64,)), power=st.integers(-8, 8))
def test_one_far_image_does_not_change_the_others(make, batch, power):
    images, candidates, _ = batch
    images, candidates = torch.cat((images, images[:1])), torch.cat((candidates, candidates[:1] + 10.0 ** (20 * power)))
    threat = make(eps=0.2)
    assert torch.equal(threat.project(images, candidates)[:-1], threat.project(images[:-1], candidates[:-1]))
