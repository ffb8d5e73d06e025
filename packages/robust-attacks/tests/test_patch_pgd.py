import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf, cross_entropy, margin, targeted
from robust_attacks.patch_pgd import PatchPGD
from torch import nn

THREATS = {"Linf": Linf, "L2": L2, "L1": L1}
EPS = {"Linf": 0.1, "L2": 0.4, "L1": 1.0}
each_threat = pytest.mark.parametrize("make", THREATS.values(), ids=THREATS.keys())
SHAPE = (2, 8, 8)


def batch(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator), torch.randint(3, (count,), generator=generator)


@each_threat
def test_it_reaches_the_worst_case_of_a_linear_model_in_its_patches(make, linear):
    images = batch(10)[0] * 0.4 + 0.3
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    attack = PatchPGD(threat=make(eps=0.2), patch_size=2, share=0.25, steps=60, step_size=0.05, coordinates=1)
    random = ImageRandom(0)
    found = attack(model, images, torch.ones(10, dtype=torch.int64), random=random)
    mask = attack.mask(images, random)
    assert (mask.sum(dim=(1, 2, 3)) == 16).all()
    dual = {"Linf": 1, "L2": 2, "L1": torch.inf}[make.__name__]
    norms = torch.linalg.vector_norm((mask * model.weight.detach()).flatten(1), dual, dim=1)
    torch.testing.assert_close((model.value(images) - model.value(found)).detach(), 0.2 * norms, rtol=1e-5, atol=0)


@pytest.mark.parametrize("random_start", [True, False])
def test_it_is_signed_ascent_on_the_masked_pixels(random_start, rows):
    """Under Linf, written out by hand."""
    model, (images, labels), random = rows(SHAPE), batch(6), ImageRandom(3, torch.arange(6))
    attack = PatchPGD(threat=Linf(eps=0.1), patch_size=4, share=0.5, steps=5, random_start=random_start)
    found = attack(model, images, labels, random=random)
    mask = attack.mask(images, random)
    point = images.clone()
    if random_start:
        size = 2 * int(mask[0].sum())
        noise = random.uniform("pgd/start", (1, 1, size))
        for one in range(6):
            own = mask[one].expand(SHAPE)
            point[one][own] = (images[one][own] + 0.1 * (2 * noise[one].flatten() - 1)).clamp(0, 1)
    for _ in range(5):
        leaf = point.clone().requires_grad_()
        nn.functional.cross_entropy(model(leaf), labels).backward()
        moved = (point + 0.05 * leaf.grad.sign()).clamp(images - 0.1, images + 0.1).clamp(0, 1)
        point = torch.where(mask, moved, images)
    torch.testing.assert_close(found, point, rtol=0, atol=1e-6)
    assert torch.equal(torch.where(mask, images, found), images)


@each_threat
@pytest.mark.parametrize("restarts", [1, 2])
def test_nothing_depends_on_the_batch(make, restarts, rows):
    model, (images, labels), random = rows(SHAPE), batch(13), ImageRandom(7, torch.arange(100, 113))
    attack = PatchPGD(threat=make(eps=EPS[make.__name__]), patch_size=2, share=0.3, steps=4, restarts=restarts)
    whole = attack(model, images, labels, random=random)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])
    for part in (slice(0, 1), slice(1, 5), slice(5, 13)):
        assert torch.equal(attack(model, images[part], labels[part], random=random[part]), whole[part])
    assert not torch.equal(attack(model, images, labels, random=ImageRandom(8)), whole)


@each_threat
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_is_inside_and_of_the_same_kind(make, dtype, rows):
    images, labels = batch(5)
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    attack = PatchPGD(threat=make(eps=EPS[make.__name__]), patch_size=4, share=0.25, steps=3)
    before = images.clone()
    found = attack(rows(SHAPE), images, labels, random=ImageRandom(0))
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    assert (attack.threat.distance(images, found) <= attack.threat.eps * (1 + 1e-6)).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_restarts_stay_in_the_same_patches_and_do_no_harm(rows):
    model, (images, _) = rows(SHAPE), batch(40)
    labels = model(images).argmax(dim=1)
    wins = []
    for restarts in (1, 4):
        attack = PatchPGD(threat=Linf(eps=0.3), patch_size=2, share=0.2, steps=2, restarts=restarts)
        found = attack(model, images, labels, random=ImageRandom(0))
        assert torch.equal(torch.where(attack.mask(images, ImageRandom(0)), images, found), images)
        wins.append(model(found).argmax(dim=1) != labels)
    assert (wins[1] | ~wins[0]).all()
    assert 0 < int(wins[0].sum()) <= int(wins[1].sum()) < 40


@pytest.mark.parametrize("loss", [cross_entropy, margin], ids=["cross_entropy", "margin"])
def test_a_targeted_attack_reaches_its_targets(loss, rows):
    model, (images, _) = rows(SHAPE), batch(20)
    now = model(images).argmax(dim=1)
    attack = PatchPGD(threat=Linf(eps=1.0), patch_size=2, share=1.0, steps=30, loss=targeted(loss))
    targets = (now + 1) % 3
    assert (model(attack(model, images, targets, random=ImageRandom(0))).argmax(dim=1) == targets).all()
    assert torch.equal(attack(model, images, now, random=ImageRandom(0)), images)


def test_under_l1_a_step_moves_a_hundredth_of_the_pixels_in_the_patches(linear):
    images = torch.full((1, 1, 40, 40), 0.5)
    model = linear(torch.randn((1, 40, 40), generator=torch.Generator().manual_seed(0)))
    attack = PatchPGD(threat=L1(eps=50.0), patch_size=10, share=0.25, steps=1, step_size=1.0, random_start=False)
    found = attack(model, images, torch.tensor([1]), random=ImageRandom(0))
    assert int((found != images).sum()) == 4  # of 400, and not of 1600


def test_its_defaults_are_those_of_the_probe():
    attack = PatchPGD()
    assert (attack.threat, attack.patch_size, attack.share, attack.steps) == (Linf(eps=8 / 255), 16, 0.1, 10)
    assert attack == PatchPGD(steps=10)
    images = torch.rand(1, 3, 224, 224)
    assert int(attack.mask(images, ImageRandom(0)).sum()) == 20 * 16 * 16


def test_no_images_are_no_work(rows):
    images = torch.rand(0, *SHAPE)
    found = PatchPGD(patch_size=2)(rows(SHAPE), images, torch.zeros(0, dtype=torch.int64))
    assert found.shape == images.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threat": 0.1}, "PatchPGD: threat must say norm and radius"),
        ({"patch_size": 0}, "PatchPGD: patch_size must be at least 1"),
        ({"share": 0.0}, "PatchPGD: share must be above 0"),
        ({"share": 1.5}, "PatchPGD: share must be .* at most 1"),
        ({"steps": 0}, "PatchPGD: steps must be at least 1"),
        ({"step_size": -1.0}, "PatchPGD: step_size must be positive"),
        ({"restarts": 300}, r"PatchPGD: restarts must be in 1\.\.256"),
        ({"restarts": 2, "random_start": False}, "PatchPGD: restarts without random_start would repeat the same run"),
        ({"loss": "ce"}, "PatchPGD: loss must be a function"),
        ({"coordinates": 0}, "PatchPGD: coordinates must be at least 1"),
        ({"eot": 0}, "PatchPGD: eot must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PatchPGD(**options)


def test_wrong_calls_are_refused(rows):
    images, labels = batch(2)
    with pytest.raises(ValueError, match=r"PatchPGD: images of 8 x 8 pixels do not divide into patches of 3 x 3"):
        PatchPGD(patch_size=3)(rows(SHAPE), images, labels)
    with pytest.raises(ValueError, match=r"PatchPGD: a share of 0.1 of 4 patches .* rounds to none"):
        PatchPGD(patch_size=4)(rows(SHAPE), images, labels)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        PatchPGD(patch_size=2)(rows(SHAPE), images + 1, labels)
    with pytest.raises(TypeError, match="random must be an ImageRandom"):
        PatchPGD(patch_size=2)(rows(SHAPE), images, labels, random=3)
