import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import L1, L2, MIFGSM, PGD, ImageRandom, Linf, cross_entropy, margin, targeted

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
DUALS = {"Linf": 1, "L2": 2, "L1": torch.inf}
EPS = {"Linf": 0.1, "L2": 0.4, "L1": 1.0}
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
SHAPE = (2, 3, 4)


def batch(count=12, seed=0, double=True):
    """Images with saturated pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    return images if double else images.float(), torch.randint(3, (count,), generator=generator)


@each_threat
def test_it_takes_from_a_linear_model_all_that_the_ball_allows(make, linear):
    """Steps of eps / steps in one direction end on the sphere."""
    images = 0.3 + 0.4 * batch(20)[0]
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    found = MIFGSM(threat=make(eps=0.2), coordinates=1)(model, images, torch.ones(20, dtype=torch.int64))
    fall = model.value(images) - model.value(found)
    norm = torch.linalg.vector_norm(model.weight.flatten(), DUALS[make.__name__])
    torch.testing.assert_close(fall, (0.2 * norm).expand(20), rtol=1e-9, atol=0)


@each_threat
def test_it_breaks_an_image_if_and_only_if_eps_exceeds_the_distance(make, linear):
    images = 0.3 + 0.4 * batch(100)[0]
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    model.bias = -float(model.value(images).detach().mean())
    value = model.value(images).detach()
    distance = value.abs() / torch.linalg.vector_norm(model.weight.detach().flatten(), DUALS[make.__name__])
    near = distance < 0.29  # so that the box is out of the way
    assert int(near.sum()) > 10
    images, labels, distance = images[near], (value[near] > 0).long(), distance[near]
    for factor, breaks in ((0.999, False), (1.001, True)):
        attack = MIFGSM(threat=make(eps=distance * factor), loss=margin, coordinates=1)
        assert ((model(attack(model, images, labels)).argmax(dim=1) != labels) == breaks).all()


def steepest(make, vector, point, coordinates):
    """The unit direction for one image, by hand."""
    if make is Linf:
        return vector.sign()
    if make is L2:
        return vector / vector.square().sum().sqrt()
    room = torch.where(vector > 0, 1 - point, point).flatten()
    sizes = [float(size) if room[i] > 0 else 0.0 for i, size in enumerate(vector.abs().flatten())]
    chosen = [i for i in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True)[:coordinates] if sizes[i]]
    step = torch.zeros_like(room)
    step[chosen] = vector.flatten()[chosen].sign() / len(chosen)
    return step.reshape(vector.shape)


def by_hand(model, images, labels, threat, *, steps, mu, step_size, coordinates=1, draws=1):
    """Equations 6 and 7 of the paper, image by image in float64; a model in turn is asked `draws` times per step."""
    made = []
    for i in range(len(images)):
        image, label = images[i : i + 1], labels[i : i + 1]
        point, gathered = image, torch.zeros_like(image)
        for _ in range(steps):
            leaf = point.clone().requires_grad_()
            losses = [torch.nn.functional.cross_entropy(model(leaf), label) for _ in range(draws)]
            gradient = sum(torch.autograd.grad(loss, leaf)[0] for loss in losses) / draws
            gathered = mu * gathered + gradient / sum(abs(float(g)) for g in gradient.flatten())
            step = step_size * steepest(type(threat), gathered, point, coordinates)
            point = threat.project(image, point + step)
        made.append(point)
    return torch.cat(made)


@each_threat
@pytest.mark.parametrize("mu", [0.0, 0.7, 1.0, 2.0])
def test_it_is_the_method_of_the_paper(make, mu, rows):
    model, (images, labels), threat = rows(SHAPE), batch(), make(eps=EPS[make.__name__])
    attack = MIFGSM(threat=threat, steps=6, mu=mu, coordinates=3)
    expected = by_hand(model, images, labels, threat, steps=6, mu=mu, step_size=threat.eps / 6, coordinates=3)
    torch.testing.assert_close(attack(model, images, labels), expected, rtol=0, atol=1e-9)
    longer = MIFGSM(threat=threat, steps=6, mu=mu, step_size=threat.eps / 2, coordinates=3)
    expected = by_hand(model, images, labels, threat, steps=6, mu=mu, step_size=threat.eps / 2, coordinates=3)
    torch.testing.assert_close(longer(model, images, labels), expected, rtol=0, atol=1e-9)


@each_threat
def test_without_momentum_it_is_pgd_from_the_image(make, rows):
    model, (images, labels), threat = rows(SHAPE), batch(), make(eps=EPS[make.__name__])
    found = MIFGSM(threat=threat, steps=5, mu=0)(model, images, labels)
    plain = PGD(threat=threat, steps=5, step_size=threat.eps / 5, random_start=False)(model, images, labels)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    assert not torch.allclose(found, MIFGSM(threat=threat, steps=5)(model, images, labels), rtol=0, atol=1e-4)


@each_threat
def test_the_scale_of_a_gradient_does_not_matter_but_its_direction(make, rows):
    """Every step counts for as much as the others in the sum: dropping the L1 norm would be another method."""
    model, (images, labels), threat = rows(SHAPE), batch(), make(eps=EPS[make.__name__])
    calls = []

    def waning(logits, labels):
        calls.append(len(labels))
        return cross_entropy(logits, labels) * 10.0 ** -len(calls)

    plain = MIFGSM(threat=threat, steps=6)(model, images, labels)
    found = MIFGSM(threat=threat, steps=6, loss=waning)(model, images, labels)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-9)


def test_momentum_carries_over_a_flat_stretch_where_a_gradient_is_zero():
    def model(images):
        x = images.flatten(1)[:, 0]
        return torch.stack((x.clamp(min=0.45), 0 * x), dim=1)

    image, label = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    found = [MIFGSM(threat=Linf(eps=0.2), mu=mu)(model, image, label) for mu in (1.0, 0.0)]
    assert [float(one) for one in found] == pytest.approx([0.3, 0.44])


@each_threat
@pytest.mark.parametrize("steps", [1, 7])
def test_it_costs_exactly_the_steps_and_draws_nothing(make, steps, rows):
    model, (images, labels), passes = rows(SHAPE), batch(), []

    def counted(images):
        passes.append("forward")
        images.register_hook(lambda _: passes.append("backward"))
        return model(images)

    attack = MIFGSM(threat=make(eps=0.1), steps=steps)
    found = attack(counted, images, labels, random=ImageRandom(0))
    assert passes == ["forward", "backward"] * steps
    assert torch.equal(found, attack(model, images, labels, random=ImageRandom(1)))


@each_threat
@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), double=st.booleans(), last=st.booleans())
def test_the_result_is_inside(make, rows, seed, eps, double, last):
    images, labels = batch(3, seed, double)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    threat = make(eps=eps)
    found = MIFGSM(threat=threat, steps=3)(rows(SHAPE), images, labels)
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert (threat.distance(images, found) <= eps * (1 + threat.tolerance)).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert eps or torch.equal(found, images)


@each_threat
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_every_batch_size_and_order_gives_the_same_images(make, double, rows):
    (images, labels), model = batch(24, double=double), rows(SHAPE)
    eps = torch.linspace(0, 0.5, 24)
    whole = MIFGSM(threat=make(eps=eps), steps=4)(model, images, labels)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for part in [*torch.arange(24).split(1), *torch.arange(24).split(7), order]:
        attack = MIFGSM(threat=make(eps=eps[part]), steps=4)
        assert torch.equal(attack(model, images[part], labels[part]), whole[part])


@each_threat
def test_the_gradient_of_a_model_that_randomises_is_the_mean_of_the_draws(make, rows):
    models = [rows(SHAPE, seed) for seed in range(3)]
    seen = []

    def in_turn(images):
        seen.append(len(images))
        return models[(len(seen) - 1) % 3](images)

    (images, labels), threat = batch(4), make(eps=EPS[make.__name__])
    found = MIFGSM(threat=threat, steps=4, coordinates=1, eot=3)(in_turn, images, labels)
    assert seen == [4] * 12
    seen.clear()
    expected = by_hand(in_turn, images, labels, threat, steps=4, mu=1.0, step_size=threat.eps / 4, draws=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@each_threat
def test_a_targeted_loss_moves_to_the_targets_and_leaves_those_that_are_there(make, rows):
    model, (images, targets) = rows(SHAPE), batch(40)
    settled = model(images).argmax(dim=1) == targets
    assert 0 < int(settled.sum()) < 40
    attack = MIFGSM(threat=make(eps=EPS[make.__name__]), loss=targeted(cross_entropy))
    found = attack(model, images, targets)
    assert torch.equal((found == images).all(dim=(1, 2, 3)), settled)
    assert (cross_entropy(model(found), targets)[~settled] < cross_entropy(model(images), targets)[~settled]).all()
    strong = MIFGSM(threat=L2(eps=3.0), steps=30, loss=targeted(margin))
    assert (model(strong(model, images, targets)).argmax(dim=1) == targets).all()


def test_no_images_make_no_images(rows):
    assert MIFGSM(threat=Linf(eps=0.1))(rows(SHAPE), *batch(0)).shape == (0, *SHAPE)


def test_it_is_a_value_with_the_settings_of_the_paper():
    assert MIFGSM(threat=Linf(eps=0.1)) == MIFGSM(threat=Linf(eps=0.1), steps=10, mu=1.0, step_size=None, eot=1)
    assert hash(MIFGSM(threat=Linf(eps=0.1))) != hash(MIFGSM(threat=Linf(eps=0.2)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threat": 0.1}, TypeError, "threat must say norm and radius, .*got 0.1"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"mu": -0.1}, ValueError, "mu must be at least 0, and finite, got -0.1"),
        ({"mu": float("nan")}, ValueError, "mu must be at least 0, and finite, got nan"),
        ({"mu": None}, TypeError, r"mu must be a number, got None \(NoneType\)"),
        ({"step_size": -1}, ValueError, "step_size must be positive and finite, or None for eps / steps, got -1"),
        ({"loss": targeted}, TypeError, "targeted turns a loss round"),
        ({"coordinates": 0}, ValueError, "coordinates must be at least 1, got 0"),
        ({"eot": 1.0}, TypeError, "eot must be an int, got 1.0"),
    ],
)
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"MIFGSM: {message}"):
        MIFGSM(**({"threat": Linf(eps=0.1)} | options))


@pytest.mark.gpu
@each_threat
def test_the_gpu_attacks_the_same(make, rows):
    (images, labels), model = batch(40), rows(SHAPE)
    attack = MIFGSM(threat=make(eps=EPS[make.__name__]), steps=5)
    here = attack(model, images, labels)
    there = attack(model.cuda(), images.cuda(), labels.cuda())
    different = ((there.cpu() - here).abs() > 1e-5).flatten(1).any(dim=1)
    assert float(different.double().mean()) < 0.1
