"""Square: laws, success, batch invariance, awkward models and images, the published result on a stored model."""

from itertools import pairwise

import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf, cross_entropy, margin, targeted
from robust_attacks.square import Square
from robust_attacks.worst_case import WorstCase
from torch import nn

SHAPE = (2, 7, 6)
THREATS = {"Linf": Linf(eps=0.03), "L2": L2(eps=0.3), "L1": L1(eps=1.0)}
each_threat = pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)


def batch(count, shape=SHAPE, seed=0):
    """Images of which some pixels are saturated."""
    generator = torch.Generator().manual_seed(seed)
    return (1.3 * torch.rand((count, *shape), generator=generator) - 0.15).clamp(0, 1)


def model_of(rows, shape=SHAPE):
    """Three classes whose boundaries run among the images."""
    inner = rows(shape)
    with torch.no_grad():
        centre = inner(batch(8, shape).double().mean(dim=0, keepdim=True))
    return lambda images: inner(images) - centre


def class_of(model, images):
    with torch.no_grad():
        return model(images).argmax(dim=1)


class Spy:
    """A model that remembers what it was shown."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, images):
        self.seen.append(images.clone())
        return self.model(images)


def inside(threat, images, found):
    return (threat.distance(images, found) <= threat.eps * (1 + threat.tolerance)).all() and found.isfinite().all()


@each_threat
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_comes_back(threat, double, rows):
    images = batch(8).to(torch.float64 if double else torch.float32).to(memory_format=torch.channels_last)
    model = model_of(rows)
    labels, before = class_of(model, images), images.clone()
    attack = Square(threat=threat, queries=70)
    state = torch.random.get_rng_state()
    found = attack(model, images, labels, random=ImageRandom(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert inside(threat, images, found)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert not found.requires_grad
    assert torch.equal(images, before)
    assert torch.equal(attack(model, images, labels, random=ImageRandom(0)), found)
    assert not torch.equal(attack(model, images, labels, random=ImageRandom(1)), found)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 1, 1), (1, 2, 2), (2, 3, 9), (1, 12, 4), (40, 5, 6), (128, 2, 2)], ids=str
)
@each_threat
def test_every_shape_of_images(threat, shape, rows):
    images, model = batch(5, shape), rows(shape)
    labels = class_of(model, images)
    spy = Spy(model)
    found = Square(threat=threat, queries=25)(spy, images, labels, random=ImageRandom(0))
    assert inside(threat, images, found)
    for shown in spy.seen[1:]:
        assert float(shown.min()) >= 0
        assert float(shown.max()) <= 1
    assert any(not torch.equal(shown[:1], images[:1]) for shown in spy.seen[1:])


@each_threat
@pytest.mark.parametrize("seed", [0, 1])
def test_all_points_that_are_shown_are_inside(threat, seed, rows):
    """Not only the last: each of them could be the one that counts."""
    images, model = batch(1, seed=seed), model_of(rows)
    spy = Spy(lambda x: model(x) * torch.tensor([0.0, 0.0, 0.0]) + torch.tensor([1.0, 0.0, 0.0]) - x.double().mean())
    Square(threat=threat, queries=150)(spy, images, torch.tensor([0]), random=ImageRandom(seed))
    shown = torch.cat(spy.seen)
    assert len(shown) > 50
    assert inside(threat, images.expand_as(shown), shown)
    assert float(shown.min()) >= 0
    assert float(shown.max()) <= 1


@each_threat
@pytest.mark.parametrize("eps", [0.0, 1e-9, 1e-4])
def test_tiny_radii(threat, eps, rows):
    """Here rounding is as large as the radius."""
    images, model = batch(4), model_of(rows)
    images[0], images[1] = 1.0, 0.0
    labels = class_of(model, images)
    threat = type(threat)(eps=eps)
    spy = Spy(model)
    found = Square(threat=threat, queries=40)(spy, images, labels)
    assert inside(threat, images, found)
    if eps == 0:
        assert torch.equal(found, images)
        if threat.name == "Linf":  # the clean images, the start, and one query that finds out that nothing changes
            assert len(spy.seen) <= 3


@each_threat
def test_every_image_has_its_own_radius(threat, rows):
    images, model = batch(6), model_of(rows)
    labels = class_of(model, images)
    eps = [0.0, 1.0, 0.5, 2.0, 0.1, 1.5]
    attack = Square(threat=type(threat)(eps=[share * threat.eps for share in eps]), queries=40)
    found = attack(model, images, labels, random=ImageRandom(0))
    for row, share in enumerate(eps):
        alone = Square(threat=type(threat)(eps=share * threat.eps), queries=40)
        one = slice(row, row + 1)
        random = ImageRandom(0, torch.tensor([row]))
        assert torch.equal(alone(model, images[one], labels[one], random=random), found[one])


@each_threat
@pytest.mark.parametrize("queries", [1, 30])
def test_its_cost(threat, queries, rows):
    """The clean images, one query for the start, one for every proposal and one for the second look at a win."""
    images, model = batch(8), model_of(rows)
    labels = class_of(model, images)
    spy = Spy(model)
    found = Square(threat=threat, queries=queries)(spy, images, labels, random=ImageRandom(0))
    won = class_of(model, found) != labels
    total = sum(len(shown) for shown in spy.seen)
    assert total <= 8 + 8 * (queries + 1) + int(won.sum())
    robust = int((~won).sum())
    assert robust
    if threat.name != "Linf":
        assert total >= 8 + robust * (queries + 1)
    else:
        assert total >= 8 + robust * (queries + 1) * 0.7
    assert not any(shown.requires_grad for shown in spy.seen)


@each_threat
def test_the_loss_never_falls(threat, rows):
    """More queries of the same stream only go on from where fewer ended."""
    images, model = batch(8), model_of(rows)
    labels = class_of(model, images)
    threat = type(threat)(eps=threat.eps / 3)
    losses = []
    for queries in (1, 2, 5, 11, 12, 30, 60):
        found = Square(threat=threat, queries=queries)(model, images, labels, random=ImageRandom(0))
        with torch.no_grad():
            losses.append(margin(model(found), labels))
    for earlier, later in pairwise(losses):
        assert (later >= earlier).all()
    assert (losses[-1] > losses[0]).float().mean() > 0.5
    assert (losses[-1] > margin(model(images), labels)).all()


@each_threat
def test_every_batch_size_and_order_gives_the_same_images(threat, rows):
    """Bit for bit; jobs of all ages and windows of several sizes stand side by side."""
    images, model = batch(16), model_of(rows)
    labels, ids = class_of(model, images), 3 * torch.arange(16) + 1
    attack = Square(threat=threat, queries=110)
    whole = attack(model, images, labels, random=ImageRandom(7, ids))
    won = class_of(model, whole) != labels
    assert won.any()
    assert not won.all()
    for size in (1, 7):
        parts = [
            attack(model, images[some], labels[some], random=ImageRandom(7, ids[some]))
            for some in torch.arange(16).split(size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=ImageRandom(7, ids[order])), whole[order])


@each_threat
def test_jobs_that_start_late_find_the_same(threat, rows):
    """In a worst case, images wait for a place in the batch, so that young and old jobs share it."""
    images, model = batch(16), model_of(rows)
    labels, ids = class_of(model, images), torch.arange(16)
    reports = [
        WorstCase([Square(threat=threat, queries=90)], seed=2).run(model, images, labels, ids, batch_size=size)
        for size in (16, 3)
    ]
    assert reports[0].robust.any()
    assert not reports[0].robust.all()
    assert torch.equal(reports[0].robust, reports[1].robust)
    assert torch.equal(reports[0].adversarial, reports[1].adversarial)
    assert reports[0].forwards == reports[1].forwards


@each_threat
def test_misclassified_images_stay_and_wins_end_the_search(threat, rows):
    images, model = batch(8), model_of(rows)
    labels = class_of(model, images)
    labels[::2] = (labels[::2] + 1) % 3
    spy = Spy(model)
    found = Square(threat=threat, queries=60)(spy, images, labels, random=ImageRandom(0))
    assert torch.equal(found[::2], images[::2])
    shown = torch.cat(spy.seen[1:])
    wins = int((class_of(model, found)[1::2] != labels[1::2]).sum())
    wrong = sum(int((class_of(model, shown) != label).any()) for label in labels[1::2])
    assert wins > 0
    assert wrong >= wins


@each_threat
@pytest.mark.parametrize("loss", [margin, cross_entropy], ids=["margin", "cross_entropy"])
def test_targets_are_reached_and_nothing_else_counts(threat, loss, rows):
    images, model = batch(12), model_of(rows)
    now = class_of(model, images)
    targets = (now + torch.arange(12) % 3) % 3
    threat = type(threat)(eps=6 * threat.eps)
    found = Square(threat=threat, queries=200, loss=targeted(loss))(model, images, targets, random=ImageRandom(0))
    arrived = class_of(model, found) == targets
    assert int(arrived.sum()) >= 10
    assert torch.equal(found[targets == now], images[targets == now])
    assert (loss(model(found), targets) <= loss(model(images), targets)).all()


@each_threat
def test_a_model_without_gradients_is_broken(threat):
    """A staircase: no gradient anywhere, and most proposals change nothing or much."""
    images = 0.3 + 0.4 * batch(6)
    mean = lambda x: x.double().mean(dim=(1, 2, 3))  # noqa: E731
    images = images - (mean(images) - 0.50025)[:, None, None, None].float()
    step = lambda x: torch.stack(((mean(x) * 2000).floor() / 2000, torch.full_like(mean(x), 0.49975)), dim=1)  # noqa: E731
    labels = torch.zeros(6, dtype=torch.int64)
    threat = {"Linf": Linf(eps=0.03), "L2": L2(eps=0.25), "L1": L1(eps=2.5)}[threat.name]
    found = Square(threat=threat, queries=500)(step, images, labels, random=ImageRandom(0))
    assert (class_of(step, found) == 1).all()


@each_threat
def test_logits_that_are_not_finite_are_no_success_and_are_told(threat, rows):
    images, model = batch(6), model_of(rows)
    labels = class_of(model, images)
    clean = images[1:2].clone()

    def broken(x):
        """NaN everywhere but at the clean images of all but the first, infinite in favour of a wrong class there."""
        logits = model(x)
        is_clean = torch.stack([(x == image).flatten(1).all(dim=1) for image in images]).any(dim=0)
        spoilt = torch.where(x.mean(dim=(1, 2, 3)) > x.mean(), torch.nan, torch.inf).double()[:, None]
        return torch.where(is_clean[:, None], logits, spoilt * torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64))

    with pytest.warns(RuntimeWarning, match="logits of 6 of 6 images were not finite") as caught:
        found = Square(threat=threat, queries=20)(broken, images, labels)
    assert caught[0].filename == __file__
    assert torch.equal(found, images)
    assert torch.equal(images[1:2], clean)


@each_threat
def test_constant_logits(threat):
    flat = lambda x: torch.tensor([[2.0, 1.0]]).expand(len(x), 2)  # noqa: E731
    images = batch(3)
    found = Square(threat=threat, queries=20)(flat, images, torch.tensor([0, 0, 1]))
    assert inside(threat, images, found)
    assert torch.equal(found[2], images[2])


@each_threat
def test_the_model_is_left_as_it_was(threat):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.1), nn.Flatten(), nn.Linear(60, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = batch(4)
    with torch.inference_mode():
        Square(threat=threat, queries=10)(model, images, torch.tensor([0, 1, 2, 0]), random=ImageRandom(0))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_draws_of_a_randomised_model_are_averaged():
    calls = []

    def noisy(x):
        calls.append(len(x))
        value = x.double().mean(dim=(1, 2, 3)) - 0.5 + 0.3 * torch.randn(len(x), dtype=torch.float64)
        return torch.stack((value, 0 * value), dim=1)

    images = torch.full((2, 1, 4, 4), 0.9)
    attack = Square(threat=Linf(eps=0.01), queries=3, eot=50)
    found = attack(noisy, images, torch.tensor([0, 0]), random=ImageRandom(0))
    assert len(calls) == 50 * len(calls[::50])
    assert inside(attack.threat, images, found)
    assert torch.equal(attack(noisy, images, torch.tensor([0, 0]), random=ImageRandom(0)), found)


@each_threat
def test_a_success_under_several_draws_does_not_end_the_search(threat, rows):
    model, images = model_of(rows), batch(6)
    labels = class_of(model, images)
    spy, margins = Spy(model), {}
    for eot in (1, 2):
        spy.seen.clear()
        found = Square(threat=threat, queries=300, eot=eot)(spy, images, labels, random=ImageRandom(0))
        margins[eot] = margin(model(found).detach(), labels)
    broken = margins[1] > 0
    assert broken.any()
    assert not broken.all()
    assert (margins[2] > 0).equal(broken)  # the same proposals: it is broken by the same one
    assert (margins[2] >= margins[1]).all()
    assert (margins[2][broken] > margins[1][broken]).any()
    assert torch.equal(margins[2][~broken], margins[1][~broken])
    if threat.name != "Linf":  # where nothing is passed over: all proposals, the start and the clean pass, twice each
        assert sum(map(len, spy.seen)) >= 2 * 302 * len(images)


def test_after_a_success_only_successes_of_higher_loss_are_kept(rows):
    """A loss that is largest where the image is classified right must not undo what has been found."""
    model, images = model_of(rows), batch(6)
    labels = class_of(model, images)

    def misleading(logits, labels):
        return -margin(logits, labels)

    once, patient = (
        Square(threat=Linf(eps=0.3), queries=40, loss=misleading, eot=eot)(model, images, labels, random=ImageRandom(0))
        for eot in (1, 2)
    )
    assert (class_of(model, once) != labels).any()
    assert torch.equal(class_of(model, patient) != labels, class_of(model, once) != labels)


def test_an_empty_batch(rows):
    nothing = torch.zeros(0, *SHAPE)
    found = Square(threat=Linf(eps=0.1))(rows(SHAPE), nothing, torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, *SHAPE)


class Ball:
    """A threat that Square does not know."""

    name, tolerance = "L7", 0.0

    def projector(self, images): ...
    def sample(self, images, random, *, use="start", restart=0): ...
    def direction(self, gradient, images, coordinates=1): ...
    def distance(self, images, others): ...
    def radii(self, images): ...
    def select(self, index): ...


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"threat": 0.1}, TypeError, r"Square: threat must say norm and radius, as Square\(threat=Linf"),
        ({"threat": Ball()}, ValueError, "Square knows the threats Linf, L2 and L1, got L7: PGD takes any threat"),
        ({"queries": 0}, ValueError, "Square: queries must be at least 1, got 0"),
        ({"queries": 2.5}, TypeError, "Square: queries must be"),
        ({"p_init": 0.0}, ValueError, "Square: p_init is a fraction of the pixels, 0 < p_init <= 1, got 0"),
        ({"p_init": 1.1}, ValueError, "Square: p_init is a fraction of the pixels"),
        ({"p_init": float("nan")}, ValueError, "Square: p_init is a fraction of the pixels"),
        ({"p_init": "0.8"}, TypeError, "Square: p_init must be a number, got '0.8'"),
        ({"p_init": True}, TypeError, "Square: p_init must be a number, got True"),
        ({"rescale_schedule": 1}, TypeError, r"Square: rescale_schedule must be True or False, got 1 \(int\)"),
        ({"loss": None}, TypeError, "Square: loss must be a function"),
        ({"loss": targeted}, TypeError, "Square: targeted turns a loss round"),
        ({"eot": 0}, ValueError, "Square: eot must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Square(**({"threat": Linf(eps=0.1)} | settings))


def test_wrong_calls_are_refused(rows):
    images, labels = batch(3), torch.zeros(3, dtype=torch.int64)
    attack = Square(threat=Linf(eps=0.1), queries=2)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack(rows(SHAPE), images * 255, labels)
    with pytest.raises(TypeError, match=r"images must be float32 or float64, got torch\.float16"):
        attack(rows(SHAPE), images.half(), labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        attack(rows(SHAPE), images, labels + 3)
    with pytest.raises(TypeError, match=r"pass random=ImageRandom\(seed=5\)"):
        attack(rows(SHAPE), images, labels, random=5)
    with pytest.raises(ValueError, match="Linf has eps for 2 images, but 3 images were given"):
        Square(threat=Linf(eps=[0.1, 0.2]))(rows(SHAPE), images, labels)
    with pytest.raises(ValueError, match="changes its input in place"):
        attack(lambda x: rows(SHAPE)(x.mul_(0.5)), images, labels)
    many = torch.full((1, 129, 1, 1), 0.5)
    constant = lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2)  # noqa: E731
    with pytest.raises(ValueError, match="Square has signs for at most 128 channels, got images of 129"):
        attack(constant, many, labels[:1])


@pytest.mark.shared_data
def test_breaks_what_the_published_square_broke(stored):
    """The two images that withstood FAB-T and not the published Square, and four that withstood both."""
    model, images, labels, results = stored("mnist_cnn_a_adv")
    masks = results["Linf"]["robust_mask_after"]
    before, after = (torch.tensor(masks[name]).bool() for name in ("fab-t", "square"))
    broken, standing = (before & ~after).nonzero()[:, 0], after.nonzero()[:4, 0]
    assert broken.tolist() == [86, 132]
    ids = torch.cat((broken, standing))
    found = Square(threat=Linf(eps=0.3))(model, images[ids], labels[ids], random=ImageRandom(0, ids))
    assert int((class_of(model, found) != labels[ids]).sum()) >= len(broken) - 1
