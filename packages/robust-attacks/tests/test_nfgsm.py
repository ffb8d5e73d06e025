import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import L2, NFGSM, ImageRandom, Linf, WorstCase, cross_entropy, margin, targeted

SHAPE = (2, 3, 4)


def batch(count=12, seed=0, double=True):
    """Images with saturated pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    return images if double else images.float(), torch.randint(3, (count,), generator=generator)


def by_hand(model, images, labels, random, eps, noise=2.0, step_size=None, draws=1):
    """Algorithm 1 of the paper, pixel by pixel in float64, with the noise of the images' streams."""
    uniform = random.uniform("nfgsm/start", SHAPE).double()
    made = []
    for i in range(len(images)):
        start = images[i : i + 1] + noise * eps * (2 * uniform[i : i + 1] - 1)
        leaf = torch.minimum(torch.maximum(start, torch.zeros(())), torch.ones(())).requires_grad_()
        losses = [torch.nn.functional.cross_entropy(model(leaf), labels[i : i + 1]) for _ in range(draws)]
        gradient = sum(torch.autograd.grad(loss, leaf)[0] for loss in losses) / draws
        step = (eps if step_size is None else step_size) * torch.sign(gradient)
        made.append(torch.minimum(torch.maximum(leaf.detach() + step, torch.zeros(())), torch.ones(())))
    return torch.cat(made)


@pytest.mark.parametrize("options", [{}, {"noise": 0.5}, {"step_size": 0.02}, {"noise": 1, "step_size": 1}], ids=repr)
def test_it_is_the_algorithm_of_the_paper(options, rows):
    (images, labels), random = batch(), ImageRandom(4, torch.arange(12) * 5)
    found = NFGSM(threat=Linf(eps=0.1), **options)(rows(SHAPE), images, labels, random=random)
    expected = by_hand(rows(SHAPE), images, labels, random, 0.1, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    assert ((found == 0) | (found == 1)).any()  # the clip was in the way


def test_a_linear_model_falls_by_the_noise_and_all_that_one_step_allows(linear):
    """Far from the box: `<w, x> - <w, x'> = eps ||w||_1 - 2 eps <w, 2 U - 1>`, with no ball in the way."""
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images = 0.4 + 0.2 * batch(200)[0]
    random, weight = ImageRandom(0, torch.arange(200)), model.weight.detach()
    found = NFGSM(threat=Linf(eps=0.1))(model, images, torch.ones(200, dtype=torch.int64), random=random)
    noise = 0.2 * (2 * random.uniform("nfgsm/start", SHAPE).double() - 1)
    expected = 0.1 * weight.abs().sum() - (noise * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close((model.value(images) - model.value(found)).detach(), expected, rtol=1e-9, atol=0)


def test_the_noise_is_uniform_and_the_change_leaves_the_ball(linear):
    """Noise of k = 2 radii and a step of one: three radii at most, more than one for 2/3 of the pixels.

    The step goes up, so more than one radius away is noise above 0 or below -2: half of the pixels.
    """
    model = linear(-torch.ones(SHAPE))
    images = torch.full((3000, *SHAPE), 0.5, dtype=torch.float64)
    found = NFGSM(threat=Linf(eps=0.1))(model, images, torch.ones(3000, dtype=torch.int64), random=ImageRandom(0))
    change = (found - images) / 0.1
    assert -1 <= float(change.min()) < -0.99
    assert 2.99 < float(change.max()) <= 3 + 1e-9
    assert float((change > 1).double().mean()) == pytest.approx(0.5, abs=0.01)
    counts = torch.histc(change, bins=20, min=-1, max=3)
    expected = change.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 65  # chi-square of 19 degrees, p ~ 1e-6


@given(
    seed=st.integers(0, 2**32), eps=st.floats(0, 1), noise=st.floats(1e-3, 4), double=st.booleans(), last=st.booleans()
)
def test_the_result_is_in_the_box_and_no_further_than_noise_and_step(rows, seed, eps, noise, double, last):
    images, labels = batch(3, seed, double)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    found = NFGSM(threat=Linf(eps=eps), noise=noise)(rows(SHAPE), images, labels, random=ImageRandom(seed))
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert ((found >= 0) & (found <= 1)).all()
    rounding = 0 if double else 1e-7
    assert ((found.double() - images).abs() <= (noise + 1) * eps * (1 + 1e-12) + rounding).all()


def test_every_image_may_have_its_own_radius_and_zero_leaves_it(rows):
    (images, labels), eps = batch(6), [0.0, 0.01, 0.1, 0.2, 0.5, 1.0]
    random = ImageRandom(1, torch.arange(6))
    together = NFGSM(threat=Linf(eps=eps))(rows(SHAPE), images, labels, random=random)
    assert torch.equal(together[0], images[0])
    for row, radius in enumerate(eps):
        only = slice(row, row + 1)
        alone = NFGSM(threat=Linf(eps=radius))(rows(SHAPE), images[only], labels[only], random=random[only])
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_every_batch_size_and_order_gives_the_same_images(double, rows):
    images, labels = batch(24, double=double)
    attack, random, model = NFGSM(threat=Linf(eps=0.1)), ImageRandom(7, torch.arange(24) * 9), rows(SHAPE)
    whole = attack(model, images, labels, random=random)
    for size in (1, 5):
        parts = [attack(model, images[p], labels[p], random=random[p]) for p in torch.arange(24).split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])
    assert not torch.equal(attack(model, images, labels, random=ImageRandom(8)), whole)


def in_turn(models, seen):
    """A model that randomises: every pass is the next of the models."""

    def model(images):
        seen.append(images.requires_grad)
        return models[(len(seen) - 1) % len(models)](images)

    return model


def test_the_gradient_of_a_model_that_randomises_is_the_mean_of_the_draws(rows):
    (images, labels), random, seen = batch(), ImageRandom(4, torch.arange(12)), []
    models = [rows(SHAPE, seed) for seed in range(3)]
    attack = NFGSM(threat=Linf(eps=0.1), eot=3)
    found = attack(in_turn(models, seen), images, labels, random=random)
    assert seen == [True] * 3
    expected = by_hand(in_turn(models, []), images, labels, random, 0.1, draws=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    assert not torch.equal(found, NFGSM(threat=Linf(eps=0.1))(models[0], images, labels, random=random))


def test_a_targeted_loss_moves_to_the_targets_and_leaves_those_that_are_there(rows):
    model, (images, targets) = rows(SHAPE), batch(40)
    settled = model(images).argmax(dim=1) == targets
    assert 0 < int(settled.sum()) < 40
    seen = []
    attack = NFGSM(threat=Linf(eps=0.2), noise=0.01, loss=targeted(cross_entropy))
    found = attack(in_turn([model], seen), images, targets, random=ImageRandom(0))
    assert seen == [False, True]  # one pass more, without a gradient
    assert torch.equal((found == images).all(dim=(1, 2, 3)), settled)
    assert (cross_entropy(model(found), targets)[~settled] < cross_entropy(model(images), targets)[~settled]).all()


def test_with_an_ordinary_loss_it_costs_one_pass_each_way_and_changes_every_image(rows):
    model, (images, _), seen = rows(SHAPE), batch(), []
    wrong = (model(images).argmax(dim=1) + 1) % 3
    found = NFGSM(threat=Linf(eps=0.1), loss=margin)(in_turn([model], seen), images, wrong)
    assert seen == [True]
    assert (found != images).any(dim=(1, 2, 3)).all()


def test_an_evaluation_refuses_it():
    """What it makes is not inside the threat."""
    assert not NFGSM.inside_threat
    with pytest.raises(ValueError, match="NFGSM"):
        WorstCase(threat=Linf(eps=0.1), attacks={"n-fgsm": NFGSM(threat=Linf(eps=0.1))})


def test_no_images_make_no_images(rows):
    assert NFGSM(threat=Linf(eps=0.1))(rows(SHAPE), *batch(0)).shape == (0, *SHAPE)


def test_it_is_a_value_with_the_settings_of_the_paper():
    assert NFGSM(threat=Linf(eps=0.1)) == NFGSM(threat=Linf(eps=0.1), noise=2.0, step_size=None, eot=1)
    assert hash(NFGSM(threat=Linf(eps=0.1))) != hash(NFGSM(threat=Linf(eps=0.2)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threat": L2(eps=0.1)}, TypeError, r"threat must be Linf, as NFGSM\(threat=Linf\(eps=8/255\)\), got L2"),
        ({"threat": 0.1}, TypeError, "threat must be Linf, .*got 0.1"),
        ({"noise": 0}, ValueError, "noise must be above 0, and finite, got 0"),
        ({"noise": float("inf")}, ValueError, "noise must be above 0, and finite, got inf"),
        ({"noise": "2"}, TypeError, r"noise must be a number, got '2' \(str\)"),
        ({"step_size": 0}, ValueError, "step_size must be positive and finite, or None for eps, got 0"),
        ({"loss": "ce"}, TypeError, "loss must be a function"),
        ({"eot": 0}, ValueError, "eot must be at least 1, got 0"),
    ],
)
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"NFGSM: {message}"):
        NFGSM(**({"threat": Linf(eps=0.1)} | options))


@pytest.mark.gpu
def test_the_gpu_attacks_the_same(rows):
    (images, labels), random, attack = batch(40), ImageRandom(3), NFGSM(threat=Linf(eps=0.1))
    model = rows(SHAPE)
    here = attack(model, images, labels, random=random)
    there = attack(model.cuda(), images.cuda(), labels.cuda(), random=random)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-12)
