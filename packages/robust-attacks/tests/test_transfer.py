import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_attacks import PGD, ImageRandom, Linf, cross_entropy
from robust_attacks.transfer import RELATIVE_EPS, TransferAttack, TransferReport, transfer
from torch import nn

SHAPE = (2, 4, 4)


def batch(count=20, seed=0, double=True):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((count, *SHAPE), generator=generator) - 0.2).clamp(0, 1)
    images = images * torch.linspace(0.3, 1, count)[:, None, None, None]  # of different largest pixels
    return images.double() if double else images, torch.randint(3, (count,), generator=generator)


def one_by_one(model, images, labels, random, attack, classes=3):
    """Image by image, from the words of the method."""
    targets = random.integers("transfer/target", classes - 1, 1)[:, 0]
    made, reached = [], []
    for i in range(len(images)):
        image, target = images[i : i + 1], int(targets[i]) + int(targets[i] >= labels[i])
        eps = attack.relative_eps * (float(image.max()) if attack.measure == "image" else 1.0)
        iterate = Linf(eps=eps).sample(image, random[i : i + 1], use="transfer/start")
        hit = int(model(image).argmax()) == target
        result = image
        for step in range(attack.steps + 1):
            if hit:
                break
            if int(model(iterate).argmax()) == target:
                hit, result = True, iterate
                break
            if step < attack.steps:
                leaf = iterate.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), torch.tensor([target])).sum(), leaf)
                iterate = Linf(eps=eps).project(image, iterate - attack.step_size * gradient.sign())
        made.append(iterate if attack.unreached == "last" and not hit else result)
        reached.append(hit)
    return torch.cat(made), torch.tensor(reached)


@pytest.mark.parametrize("unreached", ["clean", "last"])
@pytest.mark.parametrize("measure", ["image", "range"])
def test_it_is_the_method_image_by_image(measure, unreached, rows):
    model, (images, labels) = rows(SHAPE), batch(40)
    random = ImageRandom(4, torch.arange(40) * 3)
    attack = TransferAttack(relative_eps=0.06, measure=measure, unreached=unreached)
    crafted = attack.craft(model, images, labels, random=random)
    expected, reached = one_by_one(model, images, labels, random, attack)
    assert torch.equal(crafted.images, expected)
    assert torch.equal(crafted.reached, reached)
    assert 3 < int(reached.sum()) < 37
    assert torch.equal(attack(model, images, labels, random=random), crafted.images)
    missed = ~reached
    assert (crafted.images[missed] == images[missed]).flatten(1).all(dim=1).all() == (unreached == "clean")


def test_a_linear_surrogate_is_pushed_over_if_and_only_if_eps_exceeds_the_distance(linear):
    """Class 1 to class 0, at distance f / ||w||_1; the two far classes are never reached, and stay clean."""
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images = 0.3 + 0.4 * torch.rand((300, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value = model.value(images).detach()
    model.bias = 0.2 - float(value.min())
    labels, eps = torch.ones(300, dtype=torch.int64), 0.05
    distance = model.value(images).detach() / model.weight.detach().abs().sum()
    attack = TransferAttack(relative_eps=eps, measure="range", steps=30)
    crafted = attack.craft(model, images, labels, random=ImageRandom(0))
    clear = (distance - eps).abs() > 1e-6
    assert torch.equal(crafted.reached[clear], ((crafted.targets == 0) & (distance < eps))[clear])
    assert 0.05 < float(crafted.reached.double().mean()) < 0.34
    assert torch.equal(crafted.images[~crafted.reached], images[~crafted.reached])
    assert (model(crafted.images[crafted.reached]).argmax(dim=1) == 0).all()


def test_targets_are_wrong_classes_drawn_evenly_and_the_same_at_every_radius(rows):
    images, labels = batch(3000)
    ids = torch.arange(3000) + 17
    attack = TransferAttack(relative_eps=0.01, steps=1)
    targets = attack.craft(rows(SHAPE), images, labels, random=ImageRandom(1, ids)).targets
    assert (targets != labels).all()
    shifts = torch.bincount((targets - labels) % 3, minlength=3)
    assert abs(int(shifts[1]) - 1500) < 140  # five standard deviations
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    other = TransferAttack(relative_eps=0.1, steps=1)
    again = other.craft(rows(SHAPE), images[order], labels[order], random=ImageRandom(1, ids[order]))
    assert torch.equal(again.targets, targets[order])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), double=st.booleans(), last=st.booleans())
def test_the_result_is_inside_the_relative_ball(rows, seed, eps, double, last):
    images, labels = batch(4, seed=seed, double=double)
    images[0] = 0  # of no radius
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    for measure, radius in (
        ("image", eps * images.double().amax(dim=(1, 2, 3))),
        ("range", torch.full((4,), eps, dtype=torch.float64)),
    ):
        attack = TransferAttack(relative_eps=eps, measure=measure, unreached="last")
        found = attack(rows(SHAPE), images, labels, random=ImageRandom(seed))
        assert found.dtype == images.dtype
        assert found.stride() == images.stride()
        assert ((found >= 0) & (found <= 1)).all()
        assert ((found.double() - images).abs().amax(dim=(1, 2, 3)) <= radius).all()


@pytest.mark.parametrize("unreached", ["clean", "last"])
def test_every_batch_size_and_order_gives_the_same_images(unreached, rows):
    images, labels = batch(24, double=False)
    attack, model = TransferAttack(unreached=unreached), rows(SHAPE)
    random = ImageRandom(7, torch.arange(24) * 9)
    whole = attack(model, images, labels, random=random)
    for size in (1, 5):
        parts = [attack(model, images[p], labels[p], random=random[p]) for p in torch.arange(24).split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])


def test_images_that_have_stopped_leave_the_batch(rows):
    model, sizes = rows(SHAPE), {"forward": [], "backward": []}

    def counted(images):
        sizes["forward"].append(len(images))
        if images.requires_grad:
            images.register_hook(lambda gradient: sizes["backward"].append(len(gradient)))
        return model(images)

    images, labels = batch(40)
    crafted = TransferAttack(relative_eps=0.06).craft(counted, images, labels, random=ImageRandom(4))
    assert len(sizes["forward"]) == 12
    assert len(sizes["backward"]) == 10
    assert sizes["forward"] == sorted(sizes["forward"], reverse=True)
    assert sizes["forward"][-1] >= 40 - int(crafted.reached.sum())
    assert sizes["forward"][-1] < 40


def test_images_that_are_taken_for_their_targets_already_come_back_clean(rows):
    model, (images, labels) = rows(SHAPE), batch(60)
    random = ImageRandom(0)
    crafted = TransferAttack(unreached="last").craft(model, images, labels, random=random)
    settled = model(images).argmax(dim=1) == crafted.targets
    assert 0 < int(settled.sum()) < 60
    assert crafted.reached[settled].all()
    assert torch.equal((crafted.images == images).all(dim=(1, 2, 3)), settled)


def test_nothing_that_is_given_changes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 4), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten()).train()
    images, labels = batch(double=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, given = torch.get_rng_state(), images.clone()
    found = TransferAttack()(model, images, labels, random=ImageRandom(0))
    transfer(model, {"itself": model}, images, labels, relative_eps=[0.04], random=ImageRandom(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, given)
    with torch.inference_mode():
        assert torch.equal(TransferAttack()(model, images * 1, labels * 1, random=ImageRandom(0)), found)


def test_flat_and_broken_surrogates_are_pointed_out():
    for call in (TransferAttack(), TransferAttack().craft):
        with pytest.warns(RuntimeWarning, match="in a differentiable way") as caught:
            call(lambda x: x.detach()[:, 0, 0, :3] * 0, *batch())
        assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="20 of 20 images were not finite"):
        crafted = TransferAttack().craft(lambda x: x[:, 0, 0, :3] / 0, *batch())
    assert not crafted.reached.any()


def test_no_images_make_no_images(rows):
    crafted = TransferAttack().craft(rows(SHAPE), *batch(0))
    assert crafted.images.shape == (0, *SHAPE)
    assert crafted.reached.dtype == torch.bool
    assert TransferAttack()(rows(SHAPE), *batch(0)).shape == (0, *SHAPE)


@pytest.mark.gpu
def test_the_gpu_crafts_the_same(rows):
    images, labels = batch(40)
    model, attack = rows(SHAPE), TransferAttack(relative_eps=0.06)
    here = attack.craft(model, images, labels, random=ImageRandom(4))
    there = attack.craft(model.cuda(), images.cuda(), labels.cuda(), random=ImageRandom(4))
    assert torch.equal(there.targets.cpu(), here.targets)
    assert torch.equal(there.reached.cpu(), here.reached)
    torch.testing.assert_close(there.images.cpu(), here.images, rtol=0, atol=1e-6)


def right(model, images, labels):
    return float((model(images).argmax(dim=1) == labels).double().mean())


def test_the_report_counts_what_the_attack_makes(rows):
    surrogate, other, (images, _) = rows(SHAPE), rows(SHAPE, 1), batch(60)
    labels = surrogate(images).argmax(dim=1)
    random = ImageRandom(3)
    found = transfer(surrogate, {"other": other, "itself": surrogate}, images, labels, random=random)
    assert [row.settings["relative_eps"] for row in found.rows] == list(RELATIVE_EPS)
    assert (found.count, found.seed, found.surrogate_accuracy) == (60, 3, 1.0)
    assert found.clean_accuracy == {"other": right(other, images, labels), "itself": 1.0}
    for row in found.rows:
        crafted = TransferAttack(relative_eps=row.settings["relative_eps"]).craft(
            surrogate, images, labels, random=random
        )
        assert row.surrogate_success == float(crafted.reached.double().mean())
        assert row.accuracy["other"] == right(other, crafted.images, labels)
        assert row.accuracy["itself"] == pytest.approx(1 - row.surrogate_success)  # what is missed is clean, and right
    assert found.rows[0].surrogate_success < found.rows[-1].surrogate_success


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_the_report_does_not_depend_on_the_batch_size(batch_size, rows):
    surrogate, (images, labels) = rows(SHAPE), batch(30)
    options = {"relative_eps": (0.02, 0.1), "random": ImageRandom(3, torch.arange(30) + 5)}
    found = transfer(surrogate, {"other": rows(SHAPE, 1)}, images, labels, batch_size=batch_size, **options)
    assert found == transfer(surrogate, {"other": rows(SHAPE, 1)}, images, labels, **options)


def test_any_attack_can_be_crafted_on_the_surrogate(rows):
    surrogate, other, (images, labels) = rows(SHAPE), rows(SHAPE, 1), batch(30)
    pgd, random = PGD(threat=Linf(eps=0.05), steps=5), ImageRandom(3)
    made = pgd(surrogate, images, labels, random=random)
    found = transfer(surrogate, {"other": other}, images, labels, attack=pgd, random=random)
    (row,) = found.rows
    assert (row.attack, row.settings) == ("PGD", {})
    assert row.accuracy == {"other": right(other, made, labels)}
    assert row.surrogate_success == pytest.approx(1 - right(surrogate, made, labels))
    named = {"weak": pgd, "paper": TransferAttack(relative_eps=0.04, unreached="last")}
    several = transfer(surrogate, {"other": other}, images, labels, attack=named, random=random)
    assert [one.attack for one in several.rows] == ["weak", "paper"]
    assert several.rows[0].accuracy == row.accuracy
    assert several.rows[1].settings["unreached"] == "last"


def test_settings_of_the_attack_are_kept_for_every_radius(rows):
    attack = TransferAttack(unreached="last", steps=3, measure="range")
    found = transfer(rows(SHAPE), {"other": rows(SHAPE, 1)}, *batch(), attack=attack, relative_eps=[0.02, 0.05])
    assert [row.attack for row in found.rows] == ["r = 0.02", "r = 0.05"]
    assert [row.settings["relative_eps"] for row in found.rows] == [0.02, 0.05]
    assert all((row.settings["unreached"], row.settings["steps"]) == ("last", 3) for row in found.rows)


def test_a_model_whose_logits_are_not_finite_is_never_right(rows):
    images, labels = batch()
    broken = {"broken": lambda x: torch.full((len(x), 3), torch.nan)}
    found = transfer(rows(SHAPE), broken, images, labels, relative_eps=[0.02])
    assert found.clean_accuracy == {"broken": 0.0}
    assert found.rows[0].accuracy == {"broken": 0.0}


def test_the_report_is_a_table_and_goes_to_json_and_back(rows):
    found = transfer(rows(SHAPE), {"vit": rows(SHAPE, 1), "cnn": rows(SHAPE, 2)}, *batch(), random=ImageRandom(0))
    assert TransferReport.from_json(found.to_json()) == found
    assert json.loads(found.to_json())["rows"][2]["settings"]["step_size"] == 2 / 225
    title, head, clean, *lines = str(found).splitlines()
    assert title.startswith("Transfer: accuracy in per cent on 20 images, seed 0; surrogate clean ")
    assert title.endswith("images that miss their targets: clean")
    assert head.split() == ["attack", "surrogate", "success", "vit", "cnn"]
    assert clean.split() == ["clean", "-", *(f"{100 * found.clean_accuracy[name]:.1f}" for name in ("vit", "cnn"))]
    assert [line.split()[:3] for line in lines] == [["r", "=", f"{r:g}"] for r in RELATIVE_EPS]
    assert len({len(line) for line in (head, clean, *lines)}) == 1
    with pytest.raises(ValueError, match="no transfer report: its format is None, wanted is 'robust-transfer/1'"):
        TransferReport.from_json("[]")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": []}, TypeError, "models must be a mapping from names to models, .* got list"),
        ({"models": {}}, ValueError, "nothing to evaluate: got 0 models and 20 images"),
        ({"relative_eps": ()}, ValueError, "relative_eps must hold at least one radius"),
        ({"relative_eps": (4.0,)}, ValueError, "relative_eps must be at least 0 and at most 1, and finite, got 4"),
        ({"attack": 3}, TypeError, "attack must be an attack, or at least one by its name, got 3"),
        ({"attack": {}}, TypeError, "at least one by its name, got {}"),
        ({"attack": PGD}, TypeError, "attack must be an attack"),
        (
            {"attack": PGD(threat=Linf(eps=0.1)), "relative_eps": (0.1,)},
            ValueError,
            "relative_eps belongs to TransferAttack: leave it out",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"random": 0}, TypeError, r"pass random=ImageRandom\(seed=0\)"),
    ],
)
def test_wrong_calls(options, error, message, rows):
    images, labels = batch()
    given = {"models": {"other": rows(SHAPE, 1)}} | options
    with pytest.raises(error, match=message):
        transfer(rows(SHAPE), given.pop("models"), images, labels, **given)


def test_no_images_are_no_evaluation(rows):
    with pytest.raises(ValueError, match="nothing to evaluate: got 1 models and 0 images"):
        transfer(rows(SHAPE), {"other": rows(SHAPE, 1)}, *batch(0))


def test_wrong_labels_are_met_before_anything_is_crafted(rows):
    images, labels = batch()
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, .*got 5..7"):
        TransferAttack()(rows(SHAPE), images, labels * 0 + 5 + 2 * (labels > 0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relative_eps": 8}, ValueError, "relative_eps must be at least 0 and at most 1, and finite, got 8"),
        ({"relative_eps": (0.1, 0.2)}, TypeError, "relative_eps must be a number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"step_size": 0.0}, ValueError, "step_size must be above 0, and finite"),
        ({"step_size": None}, TypeError, "step_size must be a number, got None"),
        ({"measure": "L2"}, ValueError, "measure must be 'image' or 'range', got 'L2'"),
        ({"unreached": None}, ValueError, "unreached must be 'clean' or 'last', got None"),
    ],
)
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"TransferAttack: {message}"):
        TransferAttack(**options)
