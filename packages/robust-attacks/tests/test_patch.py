import pytest
import torch
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks._windows import window_of
from robust_attacks.patch import AdversarialPatch
from torch import nn

SHAPE = (2, 8, 8)


def batch(count, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *shape), generator=generator), torch.randint(3, (count,), generator=generator)


def changed(images, found):
    return (images != found).any(dim=1)


class Safe(nn.Module):
    """The linear model with a class 1 that no patch can take away."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.forwards = []

    def forward(self, images):
        self.forwards.append(len(images))
        return self.model(images) + torch.tensor([0.0, 1e4, 0.0, 0.0])


@pytest.mark.parametrize("place", ["searched", (2, 4)], ids=["searched", "given"])
@pytest.mark.parametrize("loss", [margin, cross_entropy], ids=["margin", "cross_entropy"])
def test_it_reaches_the_worst_case_of_a_linear_model(place, loss, linear):
    """Pixels at 0 or 1 by the sign of the weight, in the window where the absolute weights weigh most."""
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images = batch(6)[0]
    safe = Safe(model) if loss is margin else model  # cross-entropy has no gradient left against 1e4
    model.bias = 40.0 if loss is cross_entropy else 0.0
    attack = AdversarialPatch(size=(3, 2), place=place, restarts=1, loss=loss)
    found = attack(safe, images, torch.ones(6, dtype=torch.int64), random=ImageRandom(0))
    weight = model.weight.detach()
    corners = [place] if place != "searched" else [(top, left) for top in range(6) for left in range(7)]
    top, left = max(corners, key=lambda c: float(weight[:, c[0] : c[0] + 3, c[1] : c[1] + 2].abs().sum()))
    expected = images.clone()
    expected[:, :, top : top + 3, left : left + 2] = (weight < 0).float()[:, top : top + 3, left : left + 2]
    assert torch.equal(found, expected)


def test_it_is_signed_ascent_with_momentum_written_out_by_hand(rows):
    model, (images, _), random = rows(SHAPE), batch(5), ImageRandom(3, torch.arange(5))
    labels = model(images).argmax(dim=1)

    def never(logits, labels):  # margins as they are, of a model that is never wrong
        return margin(logits, labels)

    def safe(images):
        return model(images) + 1e3 * nn.functional.one_hot(labels, 3)

    attack = AdversarialPatch(size=3, place=(1, 4), steps=7, step_size=0.1, halve_every=3, momentum=0.8, loss=never)
    found = attack(safe, images, labels, random=random)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 1:4, 4:7] = True
    point = torch.where(mask, random.uniform("patch/start", SHAPE), images)
    gathered, values = torch.zeros_like(point), []
    for step in range(7):
        leaf = point.clone().requires_grad_()
        margin(safe(leaf), labels).sum().backward()
        gradient = torch.where(mask, leaf.grad, 0)
        gathered = 0.8 * gathered + gradient / gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
        point = (point + [0.1, 0.05, 0.025][step // 3] * gathered.sign()).clamp(0, 1)
        values.append(float(margin(safe(point), labels).detach().sum()))
    torch.testing.assert_close(found, point, rtol=0, atol=1e-6)
    assert values == sorted(values)


@pytest.mark.parametrize("place", ["searched", "random", (0, 3)], ids=str)
def test_it_returns_the_first_iterate_that_wins(place, rows):
    """A run of s steps returns its last iterate, or an earlier one that wins: so longer runs agree from there on."""
    model, (images, _), random = rows(SHAPE), batch(30), ImageRandom(0, torch.arange(30))
    labels = model(images).argmax(dim=1)
    settings = {"size": 4, "place": place, "restarts": 1, "step_size": 0.02}
    longest = AdversarialPatch(steps=12, **settings)(model, images, labels, random=random)
    open_ = torch.ones(30, dtype=torch.bool)
    for steps in range(1, 12):
        found = AdversarialPatch(steps=steps, **settings)(model, images, labels, random=random)
        won = model(found).argmax(dim=1) != labels
        assert torch.equal(found[won], longest[won])
        open_ &= ~won
    assert 0 < int(open_.sum()) < 30


@pytest.mark.parametrize("place", ["searched", "random", (0, 3)], ids=str)
def test_the_change_is_one_window_and_the_rest_is_the_image(place, rows):
    model, (images, labels) = rows(SHAPE), batch(30)
    found = AdversarialPatch(size=(2, 3), place=place, steps=5)(model, images, labels, random=ImageRandom(0))
    different = changed(images, found)
    wrong = model(images).argmax(dim=1) != labels
    assert torch.equal(different.any(dim=2).any(dim=1), ~wrong)  # what is wrong when clean comes back as it is
    for one in different[~wrong]:
        rows_, columns = one.nonzero().T
        assert int(rows_.max() - rows_.min()) <= 1
        assert int(columns.max() - columns.min()) <= 2
        if place == (0, 3):
            assert (int(rows_.min()), int(columns.min())) == (0, 3)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("place", ["searched", "random"])
def test_nothing_depends_on_the_batch(place, rows):
    model, (images, _), random = rows(SHAPE), batch(13), ImageRandom(7, torch.arange(100, 113))
    labels = model(images).argmax(dim=1)
    attack = AdversarialPatch(size=3, place=place, steps=6, restarts=3)
    whole = attack(model, images, labels, random=random)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])
    for part in (slice(0, 1), slice(1, 5), slice(5, 13)):
        assert torch.equal(attack(model, images[part], labels[part], random=random[part]), whole[part])
    assert not torch.equal(attack(model, images, labels, random=ImageRandom(8)), whole)


def test_random_places_differ_between_images_and_runs(linear):
    model = Safe(linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))))
    images, labels = torch.full((40, *SHAPE), 0.5), torch.ones(40, dtype=torch.int64)
    found = AdversarialPatch(size=2, place="random", steps=30)(model, images, labels, random=ImageRandom(0))
    places = {tuple(one.nonzero()[0].tolist()) for one in changed(images, found)}
    assert len(places) > 15
    five = AdversarialPatch(size=2, place="random", steps=30, restarts=5)
    assert (model(five(model, images, labels, random=ImageRandom(0)))[:, 1] <= model(found)[:, 1]).all()


def test_restarts_attack_what_stands_and_cost_what_they_say(linear):
    model = Safe(linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))))
    images, labels = batch(4)[0], torch.tensor([1, 1, 0, 1])  # the third is wrong from the first
    AdversarialPatch(size=2, steps=6)(model, images, labels)
    assert model.forwards == [4] + [3] * (7 * 5)
    model.forwards.clear()
    AdversarialPatch(size=2, place=(0, 0), steps=6)(model, images, labels)
    assert model.forwards == [4] + [3] * 7


def test_of_several_runs_without_success_the_highest_loss_is_returned(linear):
    """Where the search meets its second and third best place, the best one stays."""
    model = Safe(linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))))
    images, labels = batch(4)[0], torch.ones(4, dtype=torch.int64)
    found = [AdversarialPatch(size=3, restarts=n)(model, images, labels, random=ImageRandom(0)) for n in (1, 2, 5)]
    values = [model.model.value(one).detach() for one in found]
    assert (values[1] <= values[0]).all()
    assert (values[2] <= values[1]).all()


@pytest.mark.parametrize("loss", [margin, cross_entropy], ids=["margin", "cross_entropy"])
def test_a_targeted_attack_reaches_its_targets_and_leaves_what_is_there(loss, rows):
    model, (images, _) = rows(SHAPE), batch(20)
    now = model(images).argmax(dim=1)
    attack = AdversarialPatch(size=6, loss=targeted(loss))
    targets = (now + torch.arange(20) % 2) % 3
    found = attack(model, images, targets, random=ImageRandom(0))
    assert (model(found).argmax(dim=1) == targets).all()
    assert torch.equal(found[::2], images[::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_layout_model_and_random_state_stay(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3)).to(
        dtype
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = batch(4)
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    state = torch.get_rng_state()
    with torch.inference_mode():
        found = AdversarialPatch(size=3, steps=3)(model, images, labels, random=ImageRandom(0))
    assert torch.equal(state, torch.get_rng_state())
    assert (found.dtype, found.requires_grad, model.training) == (dtype, False, True)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_logits_that_are_not_finite_win_nothing_and_are_reported(rows):
    model, (images, _) = rows(SHAPE), batch(3)
    labels = model(images).argmax(dim=1)
    images[1, 0, 0, 0] = 1.0

    def sick(images):
        return torch.where(images[:, :1, 0, 0] == 1, torch.nan, model(images))

    with pytest.warns(RuntimeWarning, match="logits or gradients of 1 of 3 images were not finite"):
        found = AdversarialPatch(size=1, place=(4, 4), steps=2)(sick, images, labels, random=ImageRandom(0))
    assert found.isfinite().all()
    assert torch.equal(found[1], images[1])


def test_by_default_the_patch_is_a_square_of_a_twentieth(rows):
    images = torch.rand(1, 3, 32, 32)
    assert window_of("A", images, AdversarialPatch().size).height == 7
    assert AdversarialPatch() == AdversarialPatch(steps=100, step_size=0.05, halve_every=25, momentum=0.9)


def test_no_images_are_no_work(rows):
    assert AdversarialPatch(size=2)(rows(SHAPE), torch.rand(0, *SHAPE), torch.zeros(0, dtype=torch.int64)).shape[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "AdversarialPatch: size must be at least 1"),
        ({"place": "best"}, 'AdversarialPatch: place must be "searched", "random" or'),
        ({"steps": 0}, "AdversarialPatch: steps must be at least 1"),
        ({"step_size": 0}, "AdversarialPatch: step_size must be .*above 0"),
        ({"step_size": 2}, "AdversarialPatch: step_size must be .*at most 1"),
        ({"halve_every": 0}, "AdversarialPatch: halve_every must be at least 1"),
        ({"momentum": -0.1}, "AdversarialPatch: momentum must be at least 0"),
        ({"restarts": 257}, r"AdversarialPatch: restarts must be in 1\.\.256"),
        ({"loss": None}, "AdversarialPatch: loss must be a function"),
        ({"eot": 0}, "AdversarialPatch: eot must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        AdversarialPatch(**options)


def test_wrong_calls_are_refused(rows):
    images, labels = batch(2)
    with pytest.raises(ValueError, match="a patch of 9 x 9 pixels does not fit into images of 8 x 8"):
        AdversarialPatch(size=9)(rows(SHAPE), images, labels)
    with pytest.raises(ValueError, match=r"a patch of 4 x 4 pixels at place \(5, 0\) leaves images of 8 x 8"):
        AdversarialPatch(size=4, place=(5, 0))(rows(SHAPE), images, labels)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        AdversarialPatch(size=2)(rows(SHAPE), images * 2, labels)
    with pytest.raises(TypeError, match="random must be an ImageRandom"):
        AdversarialPatch(size=2)(rows(SHAPE), images, labels, random=3)
    with pytest.raises(TypeError, match="the model must return logits"):
        AdversarialPatch(size=2)(lambda images: (images, images), images, labels)
