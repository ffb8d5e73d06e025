import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import FGSM, L1, L2, PGD, ImageRandom, Linf, Threat
from robust_attacks.masked import Masked

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
EPS = {"Linf": 0.2, "L2": 0.7, "L1": 1.5}
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
SHAPE = (2, 4, 4)


def draw(seed, count=4):
    """Images with saturated pixels, candidates, and one mask per image, the last one empty."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((count, *SHAPE), generator=generator) - 0.2).clamp(0, 1)
    mask = torch.rand((count, 1, *SHAPE[1:]), generator=generator) < 0.4
    mask[-1] = False
    return images, images + torch.randn(images.shape, generator=generator), mask


@each_threat
@given(seed=st.integers(0, 2**32))
def test_the_projection_is_that_of_the_masked_pixels_alone(make, seed):
    """Inside, idempotent, and equal to the projection of an image that has no other pixels."""
    images, candidates, mask = draw(seed)
    threat = Masked(threat=make(eps=EPS[make.__name__]), mask=mask)
    found = threat.project(images, candidates)
    assert torch.equal(torch.where(mask, images, found), images)
    assert (threat.distance(images, found) <= threat.threat.eps * (1 + threat.tolerance)).all()
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(threat.project(images, found), found, rtol=0, atol=1e-6)
    for image, candidate, own, result in zip(images, candidates, mask.expand_as(images), found, strict=True):
        if own.any():
            alone = threat.threat.project(image[own].reshape(1, 1, 1, -1), candidate[own].reshape(1, 1, 1, -1))
            torch.testing.assert_close(result[own], alone.flatten(), rtol=0, atol=1e-6)


def test_samples_are_uniform_in_the_ball_of_the_masked_pixels():
    """The mean radius of a uniform point of a k-dimensional Euclidean ball is k / (k + 1); zeroing gives far less."""
    count = 3000
    images = torch.full((count, 1, 6, 6), 0.5, dtype=torch.float64)
    mask = torch.zeros(count, 1, 6, 6, dtype=torch.bool)
    mask[:, :, 1, 2:5] = True
    mask[count // 2 :, :, 4, 0:2] = True  # three pixels in one half, five in the other
    threat = Masked(threat=L2(eps=0.3), mask=mask)
    found = threat.sample(images, ImageRandom(0, torch.arange(count)), use="u")
    radii = threat.distance(images, found) / 0.3
    assert float(radii.max()) <= 1
    assert float(radii[: count // 2].mean()) == pytest.approx(3 / 4, abs=0.02)
    assert float(radii[count // 2 :].mean()) == pytest.approx(5 / 6, abs=0.02)


@each_threat
def test_samples_belong_to_the_image(make):
    images, _, mask = draw(0, 6)
    threat, random = Masked(threat=make(eps=EPS[make.__name__]), mask=mask), ImageRandom(1, torch.arange(6))
    found = threat.sample(images, random, use="u")
    assert (threat.distance(images, found) <= threat.threat.eps * (1 + 1e-6)).all()
    assert (found != images).any(dim=(1, 2, 3)).tolist() == [True] * 5 + [False]
    index = torch.tensor([4, 0, 2])
    assert torch.equal(threat.select(index).sample(images[index], random[index], use="u"), found[index])


@each_threat
def test_directions_have_unit_norm_and_stay_in_the_mask(make):
    images, gradient, mask = draw(3)
    threat = Masked(threat=make(eps=0.1), mask=mask)
    step = threat.direction(gradient, images * 0.5 + 0.25)
    assert not torch.where(mask, 0, step).any()
    torch.testing.assert_close(
        threat.threat.distance(torch.zeros_like(step), step)[:-1], torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_a_change_outside_the_mask_is_infinitely_far():
    images, _, mask = draw(0)
    threat, others = Masked(threat=Linf(eps=0.1), mask=mask), images.clone()
    others[1].masked_fill_(~mask[1], float("nan"))
    assert threat.distance(images, others).isinf().tolist() == [False, True, False, False]


@each_threat
@pytest.mark.parametrize("restarts", [1, 3])
def test_pgd_with_it_is_pgd_on_a_mask(make, restarts, rows):
    images, _, mask = draw(5, 8)
    model, labels = rows(SHAPE), torch.arange(8) % 3
    eps = torch.linspace(0.05, 0.3, 8)
    threat = Masked(threat=make(eps=eps), mask=mask)
    attack = PGD(threat=threat, steps=6, restarts=restarts)
    random = ImageRandom(2, torch.arange(8))
    found = attack(model, images, labels, random=random)
    assert torch.equal(torch.where(mask, images, found), images)
    assert (threat.distance(images, found) <= eps * (1 + 1e-6)).all()
    for one in range(8):
        index = torch.tensor([one])
        alone = PGD(threat=threat.select(index), steps=6, restarts=restarts)
        assert torch.equal(alone(model, images[index], labels[index], random=random[index]), found[index])


def test_one_mask_serves_all_images(rows):
    images, labels = draw(0)[0], torch.zeros(4, dtype=torch.int64)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    found = FGSM(threat=Masked(threat=Linf(eps=0.1), mask=mask))(rows(SHAPE), images, labels)
    assert torch.equal(found[..., 2:], images[..., 2:])
    threat = Masked(threat=Linf(eps=0.1), mask=mask)
    assert threat.select(torch.tensor([3, 2])) == threat
    assert torch.equal(found[2:], FGSM(threat=threat.select(torch.tensor([2, 3])))(rows(SHAPE), images[2:], labels[2:]))


def test_it_is_a_threat_and_a_value():
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    one, two = (Masked(threat=Linf(eps=0.1), mask=mask) for _ in range(2))
    assert isinstance(one, Threat)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Masked(threat=Linf(eps=0.2), mask=mask)
    assert one != Masked(threat=Linf(eps=0.1), mask=~mask)
    assert one != 3
    mask[0, 0, 0, 0] = False  # the caller's own, which it does not share
    assert one == two
    assert (one.name, one.tolerance, repr(one)) == ("masked Linf", 0.0, "Masked(threat=Linf(eps=0.1))")


@pytest.mark.parametrize(
    ("threat", "mask", "message"),
    [
        (0.1, torch.ones(1, 1, 2, 2, dtype=torch.bool), "Masked: threat must say norm and radius"),
        (Linf(eps=0.1), torch.ones(1, 1, 2, 2), "Masked: mask must be a bool tensor, .* got torch.float32"),
        (Linf(eps=0.1), [True], "Masked: mask must be a bool tensor, .* got list"),
        (Linf(eps=0.1), torch.ones(2, 2, dtype=torch.bool), r"must have shape \(N, C, H, W\), .* got \(2, 2\)"),
    ],
)
def test_what_is_no_mask_is_refused(threat, mask, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Masked(threat=threat, mask=mask)


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (1, 3, 4, 4), (1, 1, 4, 5)])
def test_a_mask_that_does_not_fit_is_refused_before_the_attack(shape, rows):
    threat = Masked(threat=Linf(eps=0.1), mask=torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"the mask has shape .*, which does not fit images of shape \(4, 2, 4, 4\)"):
        FGSM(threat=threat)(rows(SHAPE), draw(0)[0], torch.zeros(4, dtype=torch.int64))
