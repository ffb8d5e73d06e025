import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import FGSM, L1, L2, PGD, ImageRandom, Linf, Threat

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
ORDERS = {"Linf": torch.inf, "L2": 2, "L1": 1}
DUALS = {"Linf": 1, "L2": 2, "L1": torch.inf}
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
COUNT = 4000


def grey(count=COUNT, shape=(1, 4, 5)):
    """Images so far from black and white that no ball of these tests meets the box."""
    return torch.full((count, *shape), 0.5)


def offsets_of(make, eps, images=None, **options):
    images = grey() if images is None else images
    points = make(eps=eps).sample(images, ImageRandom(0).of(images), **options)
    return (points.double() - images.double()).flatten(1)


@each_threat
def test_samples_are_inside(make):
    images = torch.rand((64, 3, 4, 4), generator=torch.Generator().manual_seed(0)).round(decimals=1)
    threat = make(eps=0.3)
    points = threat.sample(images, ImageRandom(1).of(images))
    assert points.dtype == images.dtype
    assert (threat.distance(images, points) <= 0.3).all()
    assert ((points >= 0) & (points <= 1)).all()
    assert (points != images).any(dim=(1, 2, 3)).all()


def test_linf_samples_are_uniform_in_the_cube():
    offsets = offsets_of(Linf, 0.25)
    flat = (offsets / 0.5 + 0.5).flatten()
    counts = (flat * 20).floor().long().clamp(0, 19).bincount(minlength=20).double()
    expected = len(flat) / 20
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert 1e-6 < float(torch.special.gammaincc(torch.tensor(19 / 2).double(), statistic / 2)) < 1 - 1e-6
    assert float(offsets.abs().max()) <= 0.25


@pytest.mark.parametrize(("make", "order"), [(L2, 2), (L1, 1), (Linf, torch.inf)], ids=["L2", "L1", "Linf"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 4, 5)], ids=str)
def test_the_radius_of_a_uniform_point_has_the_law_of_volume(make, order, shape):
    """The radius of a uniform point of the unit ball of any norm is U^(1/d): its mean is d / (d + 1)."""
    offsets = offsets_of(make, 0.25, grey(shape=shape))
    d = offsets.shape[1]
    radius = torch.linalg.vector_norm(offsets, order, dim=1) / 0.25
    deviation = math.sqrt(d / (d + 2) - (d / (d + 1)) ** 2)
    assert abs(float(radius.mean()) - d / (d + 1)) < 4.9 * deviation / math.sqrt(COUNT)
    powers = radius.sort().values ** d  # uniform in [0, 1]: the Kolmogorov-Smirnov distance at p = 1e-6
    gap = (powers - (torch.arange(COUNT) + 0.5) / COUNT).abs().max() + 0.5 / COUNT
    assert float(gap) * math.sqrt(COUNT) < math.sqrt(math.log(2e6) / 2)


@each_threat
def test_no_orthant_and_no_pixel_is_preferred(make):
    offsets = offsets_of(make, 0.25)
    positive = (offsets > 0).double().mean(dim=0)
    assert float((positive - 0.5).abs().max()) < 4.9 * 0.5 / math.sqrt(COUNT)
    sizes = offsets.abs()
    deviation = sizes.std(dim=0) / math.sqrt(COUNT)
    assert float(((sizes.mean(dim=0) - sizes.mean()) / deviation).abs().max()) < 4.9
    quadrant = ((offsets[:, 0] > 0) * 2 + (offsets[:, 1] > 0)).bincount(minlength=4) / COUNT
    assert float((quadrant - 0.25).abs().max()) < 4.9 * math.sqrt(3 / 16 / COUNT)


@each_threat
def test_a_sample_belongs_to_its_image(make):
    images = torch.rand((9, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    threat, random = make(eps=0.2), ImageRandom(3, torch.arange(9))
    points = threat.sample(images, random)
    some = torch.tensor([7, 2, 2])
    assert torch.equal(threat.sample(images[some], random[some]), points[some])
    assert not torch.equal(threat.sample(images, random, restart=1), points)
    assert not torch.equal(threat.sample(images, random, use="other"), points)


@each_threat
def test_every_image_may_have_its_own_radius(make):
    images = grey(3)
    eps = [0.0, 0.1, 0.2]
    points = make(eps=eps).sample(images, ImageRandom(0).of(images))
    for row, radius in enumerate(eps):
        alone = make(eps=radius).sample(images[row : row + 1], ImageRandom(0, torch.tensor([row])))
        assert torch.equal(alone[0], points[row])
    assert torch.equal(points[0], images[0])


@each_threat
@given(seed=st.integers(0, 2**32), zeros=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_direction_is_the_steepest_of_unit_norm(make, seed, zeros):
    """<g, direction> is the dual norm of g: no vector of unit norm does better."""
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn((3, 2, 3, 4), generator=generator)
    gradient = torch.where(torch.rand(gradient.shape, generator=generator) < zeros, 0.0, gradient)
    threat = make(eps=0.1)
    direction = threat.direction(gradient, grey(3, (2, 3, 4)))
    norm = torch.linalg.vector_norm(direction.double(), ORDERS[threat.name], dim=(1, 2, 3))
    moves = (gradient != 0).any(dim=(1, 2, 3))
    torch.testing.assert_close(norm, moves.double(), rtol=0, atol=1e-6)
    gain = (gradient.double() * direction).sum(dim=(1, 2, 3))
    steepest = torch.linalg.vector_norm(gradient.double(), DUALS[threat.name], dim=(1, 2, 3))
    torch.testing.assert_close(gain, steepest, rtol=1e-6, atol=0)


def test_the_direction_does_not_fade_with_the_gradient():
    gradient = torch.randn((1, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    for scale in (1e-38, 1e-100, 1e30):
        torch.testing.assert_close(L2(eps=1).direction(gradient * scale, gradient), gradient / gradient.norm())


def test_the_direction_of_l1_takes_pixels_with_room_alone():
    images = torch.tensor([1.0, 0.5, 0.0, 0.5]).reshape(1, 1, 1, 4)
    gradient = torch.tensor([9.0, 1.0, -8.0, -2.0]).reshape(1, 1, 1, 4)
    direction = lambda k: L1(eps=1).direction(gradient, images, coordinates=k).flatten().tolist()  # noqa: E731
    assert direction(1) == [0, 0, 0, -1]
    assert direction(2) == [0, 0.5, 0, -0.5]
    assert direction(4) == [0, 0.5, 0, -0.5]
    assert direction(99) == [0, 0.5, 0, -0.5]


@each_threat
@given(seed=st.integers(0, 2**32))
def test_the_distance_is_the_norm_in_float64(make, seed):
    generator = torch.Generator().manual_seed(seed)
    images, others = (torch.rand((3, 2, 4, 3), generator=generator) for _ in range(2))
    distance = make(eps=0.1).distance(images, others)
    expected = [
        float(torch.linalg.vector_norm((b.double() - a.double()).flatten(), ORDERS[make.__name__]))
        for a, b in zip(images, others, strict=True)
    ]
    assert distance.dtype == torch.float64
    assert distance.tolist() == pytest.approx(expected, rel=1e-14)


@each_threat
def test_a_threat_is_a_value(make):
    assert make(eps=0.5) == make(eps=0.5)
    assert make(eps=0.5) != make(eps=0.25)
    assert hash(make(eps=[0.5, 1])) == hash(make(eps=(0.5, 1.0)))
    assert make(eps=torch.tensor([0.5, 0.25])).eps == (0.5, 0.25)
    assert make(eps=torch.tensor(0.5)).eps == 0.5
    assert make(eps=1).name == make.__name__
    assert repr(make(eps=0.5)) == f"{make.__name__}(eps=0.5)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(eps=0.5).eps = 1.0
    with pytest.raises(TypeError, match="positional"):
        make(0.5)


@each_threat
def test_some_images_keep_their_radii(make):
    threat = make(eps=[0.1, 0.2, 0.3])
    assert threat.select(torch.tensor([2, 0])) == make(eps=[0.3, 0.1])
    assert threat.select(torch.tensor([False, True, False])) == make(eps=[0.2])
    assert make(eps=0.1).select(torch.tensor([2, 0])) == make(eps=0.1)


@each_threat
@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, [0.1, -1.0], torch.tensor([math.nan])])
def test_an_impossible_radius_is_refused(make, eps):
    with pytest.raises(ValueError, match=f"{make.__name__}: eps must be a finite number >= 0"):
        make(eps=eps)


@each_threat
@pytest.mark.parametrize(
    ("eps", "given"),
    [
        (None, "got None"),
        ("8/255", "got '8/255'"),
        ("0.1", "got '0.1'"),
        (True, "got True"),
        ({0.1}, "got {0.1}"),
        ([0.1, None], r"got \[0.1, None\]"),
        (torch.full((3, 1, 1, 1), 0.1), r"got shape \(3, 1, 1, 1\)"),
    ],
)
def test_what_is_no_radius_is_refused(make, eps, given):
    forms = (
        r"eps must be one number, as 8 / 255, or one number per image in a sequence, tensor or array of shape \(N,\)"
    )
    with pytest.raises(TypeError, match=f"{make.__name__}: {forms}, {given}"):
        make(eps=eps)


@each_threat
def test_every_kind_of_number_and_list_is_a_radius(make):
    numpy = pytest.importorskip("numpy")
    for one in (0.5, numpy.float32(0.5), numpy.array(0.5), torch.tensor(0.5), Fraction(1, 2)):
        assert make(eps=one) == make(eps=0.5)
        assert type(make(eps=one).eps) is float
    for several in ([0.5, 1], (0.5, 1), numpy.array([0.5, 1]), torch.tensor([0.5, 1]), [torch.tensor(0.5), 1]):
        assert make(eps=several).eps == (0.5, 1.0)
    assert make(eps=[0.5]).eps == (0.5,)


@pytest.mark.parametrize("eps", [8, [0.1, 8]])
def test_linf_knows_the_usual_mistake(eps):
    with pytest.raises(ValueError, match=r"eps is in units of \[0, 1\] pixels, got 8.0: did you mean 8 / 255\?"):
        Linf(eps=eps)


@each_threat
def test_a_wrong_number_of_radii_is_refused(make):
    threat = make(eps=[0.1, 0.2])
    for call in (
        lambda: threat.project(grey(3), grey(3)),
        lambda: threat.sample(grey(3), ImageRandom(0, torch.arange(3))),
        lambda: threat.projector(grey(3)),
    ):
        with pytest.raises(ValueError, match="has eps for 2 images, but 3 images were given"):
            call()


NEEDED = {"name", "tolerance", "projector", "sample", "direction", "distance", "radii", "select"}


@each_threat
def test_it_follows_the_protocol(make):
    threat: Threat = make(eps=0.25)
    assert {name for name in vars(Threat) if not name.startswith("_")} == NEEDED
    assert isinstance(threat, Threat)
    assert torch.equal(threat.project(grey(2), grey(2) + 1), threat.projector(grey(2))(grey(2) + 1))


def test_a_threat_of_your_own_needs_no_more_than_the_protocol(rows):
    """Images may only become brighter: not a subclass of anything here."""

    class Brighter:
        name, tolerance = "Brighter", 0.0

        def projector(self, images):
            return lambda candidates: candidates.maximum(images).minimum((images + 0.1).clamp(max=1))

        def sample(self, images, random, *, use="start", restart=0):
            return images + 0.1 * (1 - images) * random.uniform(use, images.shape[1:], restart=restart)

        def direction(self, gradient, images, coordinates=1):
            return gradient.sign().clamp(min=0)

        def distance(self, images, others):
            return (others.double() - images).amax(dim=(1, 2, 3))

        def radii(self, images):
            return 0.1 + 1e-7

        def select(self, index):
            return self

    images, labels = grey(6, (1, 3, 3)), torch.tensor([0, 1, 2, 0, 1, 2])
    model = rows((1, 3, 3))
    found = PGD(threat=Brighter(), steps=3, restarts=2)(model, images, labels, random=ImageRandom(0))
    assert (found >= images).all()
    assert (found > images).any(dim=(1, 2, 3)).all()
    assert FGSM(threat=Brighter())(model, images, labels).shape == images.shape


@pytest.mark.gpu
@each_threat
def test_the_gpu_projects_and_samples_the_same(make):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((16, 3, 8, 8), generator=generator)
    candidates = images + torch.randn(images.shape, generator=generator)
    threat = make(eps=0.5)
    torch.testing.assert_close(
        threat.project(images.cuda(), candidates.cuda()).cpu(),
        threat.project(images, candidates),
        rtol=0,
        atol=0 if make is Linf else 1.2e-7,
    )
    here, there = (
        threat.sample(images, ImageRandom(0).of(images)),
        threat.sample(images.cuda(), ImageRandom(0, torch.arange(16).cuda())),
    )
    assert (threat.distance(images.cuda(), there) <= 0.5).all()
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0 if make is Linf else 1e-6)
