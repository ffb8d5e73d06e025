import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import FGSM, L1, L2, PGD, ImageRandom, Linf, cross_entropy, margin, targeted

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
DUALS = {"Linf": 1, "L2": 2, "L1": torch.inf}
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
SHAPE = (2, 3, 4)


@pytest.fixture
def model(linear):
    generator = torch.Generator().manual_seed(0)
    return linear(torch.randn(SHAPE, generator=generator, dtype=torch.float64), bias=0.1)


def middling(count=40, seed=1):
    """Images away from the box by 0.2."""
    return 0.2 + 0.6 * torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@each_threat
def test_it_takes_from_a_linear_model_all_that_the_ball_allows(make, model):
    images = middling()
    labels = torch.ones(len(images), dtype=torch.int64)
    adversarial = FGSM(threat=make(eps=0.15))(model, images, labels)
    fall = model.value(images) - model.value(adversarial)
    norm = torch.linalg.vector_norm(model.weight.flatten(), DUALS[make.__name__])
    torch.testing.assert_close(fall, (0.15 * norm).expand(len(images)), rtol=1e-9, atol=0)


@each_threat
@pytest.mark.parametrize("loss", [cross_entropy, margin], ids=["cross_entropy", "margin"])
def test_it_breaks_an_image_if_and_only_if_eps_exceeds_the_distance(make, loss, model):
    """The distance to the plane is |f| / ||w||_q in every norm."""
    images = middling()
    norm = torch.linalg.vector_norm(model.weight.detach().flatten(), DUALS[make.__name__])
    model.bias = 0.1 - float(model.value(images).detach().mean())
    value = model.value(images).detach()
    distance = value.abs() / norm
    near = distance < 0.19  # so that neither the box nor eps > 1 comes into play
    assert int(near.sum()) > 10
    images, labels, distance = images[near], (value[near] > 0).long(), distance[near]
    for factor, breaks in ((0.999, False), (1.001, True)):
        attack = FGSM(threat=make(eps=distance * factor), loss=loss)
        predicted = model(attack(model, images, labels)).argmax(dim=1)
        assert ((predicted != labels) == breaks).all()


def test_under_linf_the_closed_form_knows_the_box(model):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand((40, *SHAPE), generator=generator, dtype=torch.float64).round(decimals=1)
    adversarial = FGSM(threat=Linf(eps=0.25))(model, images, torch.ones(40, dtype=torch.int64))
    weight = model.weight.detach()
    room = torch.where(weight > 0, images, 1 - images).clamp(max=0.25)
    fall = model.value(images) - model.value(adversarial)
    torch.testing.assert_close(fall, (room * weight.abs()).sum(dim=(1, 2, 3)), rtol=1e-9, atol=0)


def test_a_random_start_is_fgsm_rs(rows):
    """Start anywhere in the cube, step 1.25 eps along the sign, clip to cube and box."""
    model = rows(SHAPE)
    images = torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(0))
    labels, random = torch.tensor([0, 1, 2, 0, 1, 2]), ImageRandom(4, torch.arange(6))
    threat = Linf(eps=0.1)
    adversarial = FGSM(threat=threat, random_start=True)(model, images, labels, random=random)
    start = threat.sample(images, random, use="fgsm/start").requires_grad_()
    torch.nn.functional.cross_entropy(model(start), labels).backward()
    assert torch.equal(adversarial, threat.project(images, start.detach() + 0.125 * start.grad.sign()))
    assert not torch.equal(adversarial, FGSM(threat=threat)(model, images, labels))


@each_threat
@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), random_start=st.booleans(), double=st.booleans())
def test_the_result_is_inside(make, rows, seed, eps, random_start, double):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((3, *SHAPE), generator=generator) - 0.2).clamp(0, 1)
    images = images.double() if double else images
    threat = make(eps=eps)
    attack = FGSM(threat=threat, random_start=random_start)
    adversarial = attack(rows(SHAPE), images, torch.tensor([0, 1, 2]), random=ImageRandom(seed))
    assert adversarial.dtype == images.dtype
    assert (threat.distance(images, adversarial) <= eps).all()
    assert ((adversarial >= 0) & (adversarial <= 1)).all()


def test_the_step_size_is_a_length_in_the_norm_of_the_threat(model):
    images = middling()
    labels = torch.ones(len(images), dtype=torch.int64)
    for make in THREATS.values():
        threat = make(eps=0.15)
        adversarial = FGSM(threat=threat, step_size=0.05)(model, images, labels)
        torch.testing.assert_close(threat.distance(images, adversarial), torch.full((40,), 0.05, dtype=torch.float64))


@each_threat
def test_a_targeted_loss_moves_towards_the_labels(make, model):
    images = middling()
    model.bias += 0.05 - float(model.value(images).detach().min())  # all are class 1
    adversarial = FGSM(threat=make(eps=0.15), loss=targeted(margin))(model, images, torch.zeros(40, dtype=torch.int64))
    assert (model.value(adversarial) < model.value(images)).all()


@each_threat
@pytest.mark.parametrize("random_start", [True, False], ids=["random", "clean"])
def test_images_that_are_predicted_as_their_targets_come_back_unchanged(make, random_start, rows):
    """A random start costs a targeted attack one forward pass more, and no other attack."""
    model, sizes = rows(SHAPE), []

    def counted(images):
        sizes.append(len(images))
        return model(images)

    images = torch.rand((30, *SHAPE), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(30) % 3
    settled = model(images).argmax(dim=1) == targets
    assert 0 < int(settled.sum()) < 30
    options = {"threat": make(eps=0.1), "random_start": random_start}
    found = FGSM(**options, loss=targeted(margin))(counted, images, targets)
    assert ((found == images).all(dim=(1, 2, 3)) == settled).all()
    assert sizes == [30] * (1 + random_start)
    sizes.clear()
    assert (FGSM(**options)(counted, images, targets) != images).any(dim=(1, 2, 3)).all()
    assert sizes == [30]


@each_threat
@pytest.mark.parametrize("random_start", [True, False], ids=["random", "clean"])
def test_the_gradient_of_a_model_that_randomises_is_the_mean_of_the_draws(make, random_start, rows):
    """Of the gradients, and not of the logits: for cross-entropy these differ."""
    models, seen = [rows(SHAPE, seed) for seed in range(3)], []

    def in_turn(images):
        seen.append(images.requires_grad)
        return models[(len(seen) - 1) % 3](images)

    images, labels, random = middling(12), torch.arange(12) % 3, ImageRandom(4, torch.arange(12))
    threat = make(eps=0.15)
    found = FGSM(threat=threat, random_start=random_start, eot=3)(in_turn, images, labels, random=random)
    assert seen == [True] * 3
    start = threat.sample(images, random, use="fgsm/start") if random_start else images
    gradients = []
    for model in models:
        leaf = start.clone().requires_grad_()
        gradients += torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaf), labels), leaf)
    step = (1.25 if random_start else 1) * 0.15 * threat.direction(sum(gradients), start)
    torch.testing.assert_close(found, threat.project(images, start + step), rtol=0, atol=1e-12)


def test_a_random_start_can_be_restarted_as_pgd(rows):
    """What the docstring promises: `PGD(steps=1, step_size=1.25 * eps, restarts=...)` is FGSM-RS again and again."""
    model, images = rows(SHAPE), middling(30)
    labels, random, threat = model(images).argmax(dim=1), ImageRandom(0, torch.arange(30)), Linf(eps=0.1)
    once = PGD(threat=threat, steps=1, step_size=1.25 * 0.1)(model, images, labels, random=random)
    start = threat.sample(images, random, use="pgd/start").requires_grad_()
    torch.nn.functional.cross_entropy(model(start), labels).backward()
    assert torch.equal(once, threat.project(images, start.detach() + 1.25 * 0.1 * start.grad.sign()))
    often = PGD(threat=threat, steps=1, step_size=1.25 * 0.1, restarts=10)(model, images, labels, random=random)
    standing = [(model(found).argmax(dim=1) == labels) for found in (once, often)]
    assert (standing[0] | ~standing[1]).all()
    assert int(standing[1].sum()) < int(standing[0].sum())


def test_it_is_a_value():
    assert FGSM(threat=Linf(eps=0.1)) == FGSM(threat=Linf(eps=0.1))
    assert len({FGSM(threat=Linf(eps=0.1)), FGSM(threat=Linf(eps=0.1)), FGSM(threat=L2(eps=0.1))}) == 2
