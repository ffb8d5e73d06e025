"""FAB against closed forms, itself at other batch sizes, and the published AutoAttack on a stored network."""

import math
import warnings

import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf
from robust_attacks.fab import FAB
from torch import nn

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
DUALS = {"Linf": 1, "L2": 2, "L1": torch.inf}
EPS = {"Linf": 0.05, "L2": 0.2, "L1": 0.6}
SHAPE = (2, 4, 4)
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
each_mode = pytest.mark.parametrize("targets", [None, 9], ids=["untargeted", "targeted"])


def weight(seed=1):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def least_distance(make, model, image):
    """How far one image must go to where a linear model is 0, box included, in float64: a slow search of the radius."""
    value, normal = float(model.value(image[None]).detach()), model.weight.detach()
    down = normal.sign() * (1 if value > 0 else -1)
    room = torch.where(down > 0, image, 1 - image).double()
    size = normal.abs()

    def fall(radius):
        if make is Linf:
            return (size * room.clamp(max=radius)).sum()
        if make is L1:
            order = size.flatten().argsort(descending=True)
            rooms = room.flatten()[order]
            return (size.flatten()[order] * (radius - rooms.cumsum(0) + rooms).clamp(min=0).minimum(rooms)).sum()
        low, high = 0.0, 1e3
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if torch.minimum(middle * size, room).norm() < radius else (low, middle)
        return (size * torch.minimum(low * size, room)).sum()

    low, high = 0.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fall(middle) < abs(value) else (low, middle)
    return low


@each_threat
@each_mode
def test_it_comes_within_eta_of_the_least_distance_of_a_linear_model(make, targets, linear, batch):
    images = batch(20)[0] * 0.2 + 0.4
    model = linear(weight(), bias=-0.5 * float(weight().sum()))
    labels = model(images).argmax(dim=1)
    closest = FAB(threat=make(eps=0.1), steps=10, restarts=2, targets=targets).minimum(model, images, labels)
    least = (model.value(images).abs() / weight().double().norm(DUALS[make.__name__])).detach()
    assert least.max() < 0.4
    assert closest.found.all()
    assert (closest.distances <= 1.05 * least + 1e-6).all()
    assert (closest.distances >= least - 1e-6).all()
    assert (model(closest.adversarial).argmax(dim=1) != labels).all()
    assert closest.norm == make.__name__


@each_threat
def test_it_comes_within_eta_of_the_least_distance_with_the_box_in_the_way(make, linear, batch):
    images = batch(12)[0]
    model = linear(weight(), bias=-0.5 * float(weight().sum()) + 3)
    labels = model(images).argmax(dim=1)
    closest = FAB(threat=make(eps=0.1), steps=20, targets=1).minimum(model, images, labels)
    least = torch.tensor([least_distance(make, model, image) for image in images])
    free = (model.value(images).abs() / weight().double().norm(DUALS[make.__name__])).detach()
    assert (least > 1.1 * free).any()  # the box is in the way
    assert (closest.distances <= 1.05 * least + 1e-6).all()
    assert (closest.distances >= least - 1e-6).all()


@each_threat
@each_mode
def test_a_call_breaks_what_lies_within_eps_and_leaves_the_rest(make, targets, linear, batch):
    images = batch(40)[0] * 0.2 + 0.4
    model = linear(weight(), bias=-0.5 * float(weight().sum()))
    labels = model(images).argmax(dim=1)
    least = (model.value(images).abs() / weight().double().norm(DUALS[make.__name__])).detach()
    eps = float(least.median())
    threat = make(eps=eps)
    found = FAB(threat=threat, steps=20, targets=targets)(model, images, labels, random=ImageRandom(0))
    broken = model(found).argmax(dim=1) != labels
    assert broken[least < eps / 1.05].all()
    assert not broken[least > eps].any()
    assert (threat.distance(images, found) <= eps * (1 + threat.tolerance)).all()
    assert torch.equal(found[~broken], images[~broken])


@each_threat
@each_mode
def test_a_call_breaks_the_images_whose_minimum_is_within_eps(make, targets, rows, batch):
    model, images = rows(SHAPE), batch(40)[0]
    labels = model(images).argmax(dim=1)
    threat, random = make(eps=EPS[make.__name__]), ImageRandom(0)
    attack = FAB(threat=threat, steps=12, restarts=2, targets=targets)
    broken = model(attack(model, images, labels, random=random)).argmax(dim=1) != labels
    near = attack.minimum(model, images, labels, random=random).distances <= threat.eps
    assert torch.equal(broken, near)
    assert 0 < int(broken.sum()) < 40


def plateau(images):
    """Flat around images of 0.5, so that only runs which start elsewhere find a gradient; then a slope on all sides."""
    rise = 100 * ((images - 0.5).abs().sum(dim=(1, 2, 3)) - 0.005).relu()
    return torch.stack((torch.ones_like(rise), rise), dim=1)


@each_threat
def test_a_targeted_run_does_not_weaken_a_later_untargeted_one(make):
    """In the published code the targeted run leaves one restart behind for the runs after it."""
    model, images, labels = plateau, torch.full((10, *SHAPE), 0.5), torch.zeros(10, dtype=torch.int64)
    untargeted = FAB(threat=make(eps=0.1), steps=5, restarts=3)
    before = untargeted.minimum(model, images, labels, random=ImageRandom(0))
    FAB(threat=make(eps=0.1), steps=5, targets=9)(model, images, labels)
    after = untargeted.minimum(model, images, labels, random=ImageRandom(0))
    assert torch.equal(before.distances, after.distances)
    assert after.found.all()
    assert not FAB(threat=make(eps=0.1), steps=5, restarts=1).minimum(model, images, labels).found.any()


@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_its_cost_follows_from_the_number_of_classes(classes, batch, counting):
    torch.manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, classes))
    images = batch(4)[0]
    labels = model(images).argmax(dim=1)
    counted = counting(model)
    closest = FAB(threat=Linf(eps=0.1), steps=3, targets=9).minimum(counted, images, labels)
    runs = min(9, classes - 1)
    assert sum(counted.forwards) == 4 * (1 + runs * 3 * 2 + 1)  # the images, two per step, the second verdict
    assert sum(counted.backwards) == 4 * runs * 3
    assert closest.found.all()
    counted = counting(model)
    closest = FAB(threat=Linf(eps=0.1), steps=3, restarts=2).minimum(counted, images, labels)
    assert sum(counted.forwards) == 4 * (1 + 2 * 3 * 2 + 1)
    assert sum(counted.backwards) == 4 * 2 * 3 * (classes - 1)
    assert closest.found.all()


@each_threat
def test_the_untargeted_run_goes_for_the_nearest_of_several_boundaries(make):
    """Three planes at known distances; the class next in the logits is not the one whose boundary is nearest."""
    normals = torch.stack([torch.zeros(32), weight(1).flatten(), 9 * weight(2).flatten(), weight(3).flatten()])
    images = torch.full((1, *SHAPE), 0.5)
    offsets = torch.tensor([0.0, -0.5, -1.0, -2.0]) - normals @ images.flatten()

    def model(images):
        return images.flatten(1) @ normals.T + offsets

    gaps = torch.tensor([0.5, 1.0, 2.0]).double()
    distances = gaps / normals[1:].double().norm(DUALS[make.__name__], dim=1)
    assert distances.argmin() == 1
    options = {"threat": make(eps=0.1), "steps": 1, "restarts": 1}
    label = torch.tensor([0])
    nearest = FAB(**options).minimum(model, images, label)
    assert float(nearest.distances) == pytest.approx(1.05 * float(distances[1]), rel=1e-4)
    for targets, expected in ((1, distances[0]), (2, distances[:2].min()), (3, distances.min())):
        found = FAB(**options, targets=targets).minimum(model, images, label)
        assert float(found.distances) == pytest.approx(1.05 * float(expected), rel=1e-4)


def test_a_point_pulled_back_counts_where_it_is_still_misclassified():
    """One pixel at 0.5, the boundary at 0.6, steps of twice the way: 0.7, then back to 0.68, then over to 0.52."""

    def model(images):
        x = images[:, 0, 0, 0]
        return torch.stack((0 * x, x - 0.6), dim=1)

    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    distances = [
        float(
            FAB(threat=Linf(eps=0.1), steps=steps, eta=2.0, alpha_max=0.0, targets=1)
            .minimum(model, images, labels)
            .distances
        )
        for steps in (1, 2)
    ]
    assert distances == pytest.approx([0.2, 0.18], abs=1e-6)
    found = FAB(threat=Linf(eps=0.19), steps=2, eta=2.0, alpha_max=0.0, targets=1)(model, images, labels)
    assert float(found) == pytest.approx(0.68, abs=1e-6)


def test_a_random_start_that_is_misclassified_is_found_without_a_gradient():
    """A step function: only the starts of the second run and on leave the image."""

    def model(images):
        beyond = (images.flatten(1)[:, 0] > 0.52).float()
        return torch.stack((1 - beyond, beyond), dim=1) + 0 * images.sum()

    images, labels = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    attack = FAB(threat=Linf(eps=0.1), steps=2, restarts=10)
    found = attack(model, images, labels, random=ImageRandom(0))
    assert (model(found).argmax(dim=1) == 1).float().mean() > 0.9
    assert (attack.minimum(model, images, labels, random=ImageRandom(0)).distances <= 0.05 + 1e-6)[
        model(found).argmax(dim=1) == 1
    ].all()


@each_threat
def test_random_starts_lie_half_of_eps_away(make):
    starts = []

    def model(images):
        if images.requires_grad:  # where steps start, not where they land
            starts.append(images.detach().clone())
        return torch.stack((images.sum(dim=(1, 2, 3)) * 0 + 1, images.sum(dim=(1, 2, 3)) * 0), dim=1)

    images = torch.full((3, *SHAPE), 0.5)
    threat = make(eps=[0.1, 0.2, 0.3])
    FAB(threat=threat, steps=1, restarts=2)(model, images, torch.zeros(3, dtype=torch.int64), random=ImageRandom(0))
    first, second = (threat.distance(images, start) for start in starts)
    assert not first.any()
    torch.testing.assert_close(second, torch.tensor([0.05, 0.1, 0.15]).double(), rtol=1e-5, atol=0)


@each_threat
@each_mode
def test_every_batch_size_and_order_gives_the_same_images(make, targets, rows, batch):
    """Bit for bit, since this model computes each row by itself."""
    model, images = rows(SHAPE), batch(24)[0]
    labels = model(images).argmax(dim=1)
    ids = torch.arange(24) * 1000 + 3
    attack = FAB(threat=make(eps=EPS[make.__name__]), steps=5, restarts=2, targets=targets)
    whole = attack(model, images, labels, random=ImageRandom(7, ids))
    closest = attack.minimum(model, images, labels, random=ImageRandom(7, ids))
    for size in (1, 7):
        pieces = list(zip(images.split(size), labels.split(size), ids.split(size), strict=True))
        parts = [attack(model, *piece[:2], random=ImageRandom(7, piece[2])) for piece in pieces]
        assert torch.equal(torch.cat(parts), whole)
        if size == 7:
            parts = [attack.minimum(model, *piece[:2], random=ImageRandom(7, piece[2])) for piece in pieces]
            assert torch.equal(torch.cat([part.adversarial for part in parts]), closest.adversarial)
            assert torch.equal(torch.cat([part.distances for part in parts]), closest.distances)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = attack(model, images[order], labels[order], random=ImageRandom(7, ids[order]))
    assert torch.equal(shuffled, whole[order])


@each_threat
def test_runs_towards_targets_draw_nothing_and_restarts_do(make, rows):
    images = torch.full((10, *SHAPE), 0.5)
    for model, targets, equal in ((rows(SHAPE), 9, True), (plateau, None, False)):
        labels = model(images).argmax(dim=1)
        attack = FAB(threat=make(eps=0.1), steps=20, restarts=2, targets=targets)
        one, two = (attack.minimum(model, images, labels, random=ImageRandom(seed)) for seed in (0, 1))
        assert ((one.distances > 0) & one.found).all()
        assert torch.equal(one.adversarial, two.adversarial) == equal


@each_threat
@each_mode
def test_every_image_may_have_its_own_radius(make, targets, rows, batch):
    model, images = rows(SHAPE), batch(6)[0]
    labels = model(images).argmax(dim=1)
    eps = [0.0, 0.01, 0.05, 0.2, 0.5, 1.0]
    random = ImageRandom(1, torch.arange(6))
    together = FAB(threat=make(eps=eps), steps=5, restarts=2, targets=targets)(model, images, labels, random=random)
    for row, radius in enumerate(eps):
        only = torch.tensor([row])
        attack = FAB(threat=make(eps=radius), steps=5, restarts=2, targets=targets)
        assert torch.equal(attack(model, images[only], labels[only], random=random[only])[0], together[row])
    assert torch.equal(together[0], images[0])


@each_threat
@each_mode
def test_misclassified_images_come_back_unchanged_at_distance_zero(make, targets, rows, batch):
    model, images = rows(SHAPE), batch(9)[0]
    labels = model(images).argmax(dim=1)
    labels[::2] = (labels[::2] + 1) % 3
    attack = FAB(threat=make(eps=EPS[make.__name__]), steps=4, restarts=2, targets=targets)
    assert torch.equal(attack(model, images, labels, random=ImageRandom(0))[::2], images[::2])
    closest = attack.minimum(model, images, labels, random=ImageRandom(0))
    assert torch.equal(closest.adversarial[::2], images[::2])
    assert (closest.distances[::2] == 0).all()
    assert (closest.distances[1::2] > 0).all()


@each_mode
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_dtype_and_memory_layout_are_kept_and_an_empty_batch_is_none(targets, double, rows, batch):
    model, images = rows(SHAPE), batch(5)[0].to(memory_format=torch.channels_last)
    images = images.double() if double else images
    labels = model(images).argmax(dim=1)
    attack = FAB(threat=L2(eps=0.3), steps=4, restarts=2, targets=targets)
    before = images.clone()
    for found in (attack(model, images, labels), attack.minimum(model, images, labels).adversarial):
        assert found.dtype == images.dtype
        assert found.stride() == images.stride()
        assert not found.requires_grad
    assert torch.equal(images, before)
    assert attack(model, images[:0], labels[:0]).shape == (0, *SHAPE)
    assert attack.minimum(model, images[:0], labels[:0]).distances.shape == (0,)


AWKWARD = {
    "no graph": lambda x: torch.stack(
        (x.detach().sum(dim=(1, 2, 3)) * 0, x.detach().sum(dim=(1, 2, 3)) * 0 + 1), dim=1
    ),
    "zero gradient": lambda x: torch.stack((x.sum(dim=(1, 2, 3)) * 0, x.sum(dim=(1, 2, 3)) * 0 + 1), dim=1),
    "rounding": lambda x: torch.stack((x.round().sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * 0 + 1), dim=1),
    "infinite gradient": lambda x: torch.stack((x.sum(dim=(1, 2, 3)), (x - x).abs().sqrt().sum(dim=(1, 2, 3))), dim=1),
    "huge logits": lambda x: torch.stack((x.sum(dim=(1, 2, 3)) * 1e38, -x.sum(dim=(1, 2, 3)) * 1e38), dim=1),
    "tiny logits": lambda x: torch.stack((x.sum(dim=(1, 2, 3)) * 1e-38, x[:, 0, 0, 0] * 1e-38), dim=1),
    "NaN away from the image": lambda x: torch.stack(
        (x.sum(dim=(1, 2, 3)) + 1, x[:, 0, 0, 0] + torch.where(x[:, 0, 0, 0] == 0.5, 0, torch.nan)), dim=1
    ),
}


@each_threat
@each_mode
@pytest.mark.parametrize("model", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_models_give_finite_images_inside(make, targets, model, batch):
    images = batch(4)[0]
    images[:, 0, 0, 0] = 0.5
    labels = model(images).argmax(dim=1)
    threat = make(eps=0.3)
    attack = FAB(threat=threat, steps=3, restarts=2, targets=targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logits of . of 4 images were not finite", RuntimeWarning)
        found = attack(model, images, labels, random=ImageRandom(0))
        closest = attack.minimum(model, images, labels, random=ImageRandom(0))
    assert found.isfinite().all()
    assert (threat.distance(images, found) <= 0.3 * (1 + threat.tolerance)).all()
    assert closest.adversarial.isfinite().all()
    assert (model(closest.adversarial).argmax(dim=1) != labels)[closest.found].all()
    assert torch.equal(closest.adversarial[~closest.found], images[~closest.found])


@each_mode
def test_logits_that_are_not_finite_are_no_success_and_are_told(targets):
    def model(images):
        x = images.sum(dim=(1, 2, 3))
        return torch.stack((x * 0, torch.where(x > 16.4, torch.nan, x - 16.4)), dim=1)

    images, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2, dtype=torch.int64)
    attack = FAB(threat=Linf(eps=0.3), steps=3, restarts=2, targets=targets, eta=2.0)
    with pytest.warns(RuntimeWarning, match="logits of 2 of 2 images were not finite"):
        assert torch.equal(attack(model, images, labels, random=ImageRandom(0)), images)
    with pytest.warns(RuntimeWarning, match="logits of 2 of 2 images were not finite"):
        assert not attack.minimum(model, images, labels, random=ImageRandom(0)).found.any()


def test_it_is_pure(batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    images = batch(4)[0]
    labels = torch.zeros(4, dtype=torch.int64)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    for targets in (None, 9):
        attack = FAB(threat=Linf(eps=0.1), steps=2, restarts=2, targets=targets)
        with torch.inference_mode():
            attack(model, images, labels, random=ImageRandom(0))
            attack.minimum(model, images, labels, random=ImageRandom(0))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "0.weight")
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threat": Linf}, TypeError, r"FAB: threat must say norm and radius, as FAB\(threat=Linf\(eps=8/255\)\)"),
        ({"steps": 0}, ValueError, "FAB: steps must be at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "FAB: steps must be an int, got 1.5"),
        ({"restarts": 300}, ValueError, r"FAB: restarts must be in 1..256, got 300"),
        ({"targets": 0}, ValueError, "FAB: targets must be at least 1, got 0"),
        ({"targets": True}, TypeError, "FAB: targets must be an int, got True"),
        ({"alpha_max": 1.5}, ValueError, "FAB: alpha_max must be at least 0 and at most 1, and finite, got 1.5"),
        ({"eta": 0.5}, ValueError, "FAB: eta must be at least 1, and finite, got 0.5"),
        ({"eta": math.inf}, ValueError, "FAB: eta must be at least 1, and finite, got inf"),
        ({"beta": -0.1}, ValueError, "FAB: beta must be at least 0 and at most 1, and finite, got -0.1"),
        ({"beta": "0.9"}, TypeError, "FAB: beta must be a number, got '0.9'"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        FAB(**{"threat": Linf(eps=0.1), **options})


def test_it_is_a_value_with_a_name():
    assert FAB(threat=Linf(eps=0.1), targets=9) == FAB(threat=Linf(eps=0.1), targets=9)
    assert hash(FAB(threat=Linf(eps=0.1))) != hash(FAB(threat=Linf(eps=0.2)))
    assert FAB(threat=L2(eps=0.1)).name == "fab"
    assert FAB(threat=L2(eps=0.1), targets=3).name == "fab-t"


@pytest.mark.parametrize("method", ["__call__", "minimum"])
def test_wrong_calls_are_refused(method, rows, batch):
    call = getattr(FAB(threat=Linf(eps=[0.1, 0.2])), method)
    with pytest.raises(ValueError, match="images must lie in"):
        call(rows(SHAPE), batch(2)[0] - 1, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, since the model returns 3 logits"):
        call(rows(SHAPE), batch(2)[0], torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="Linf has eps for 2 images, but 3 images were given"):
        call(rows(SHAPE), batch(3)[0], torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="random must be an ImageRandom"):
        call(rows(SHAPE), batch(2)[0], torch.tensor([0, 1]), random=0)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("threat", "standing", "median"),
    [(Linf(eps=2 / 255), 14, 0.0183656), (L2(eps=0.5), 11, 0.522898), (L1(eps=8.0), 8, 4.28468)],
    ids=THREATS.keys(),
)
def test_it_finds_what_the_published_autoattack_finds(stored, threat, standing, median):
    """Twenty images, 20 steps towards each of 9 targets, against the published FAB-T with the same settings.

    Its masks and the median of its distances (torch.median, the lower of the two in the middle) were recorded.
    """
    model, images, labels, _ = stored("cifar_cnn_a_adv")
    right = (model(images).argmax(dim=1) == labels).nonzero()[:20, 0]
    images, labels = images[right], labels[right]
    attack = FAB(threat=threat, steps=20, targets=9)
    closest = attack.minimum(model, images, labels)
    assert int((closest.distances > threat.eps).sum()) <= standing
    assert float(closest.distances.median()) <= 1.01 * median
    found = attack(model, images, labels)
    assert int((model(found).argmax(dim=1) == labels).sum()) <= standing


@pytest.mark.gpu
@each_threat
@each_mode
def test_the_gpu_attacks_the_same(make, targets, rows, batch):
    images, model = batch(32)[0], rows(SHAPE)
    labels = model(images).argmax(dim=1)
    attack = FAB(threat=make(eps=EPS[make.__name__]), steps=8, restarts=2, targets=targets)
    here = attack.minimum(model, images, labels, random=ImageRandom(0))
    model = model.cuda()
    there = attack.minimum(model, images.cuda(), labels.cuda(), random=ImageRandom(0))
    different = (there.distances.cpu() - here.distances).abs() > 1e-4 * here.distances
    assert float(different.double().mean()) < 0.1
    found = attack(model, images.cuda(), labels.cuda(), random=ImageRandom(0))
    broken = (model(found).argmax(dim=1) != labels.cuda()).cpu()
    assert float((broken != (here.distances <= attack.threat.eps)).double().mean()) < 0.1
