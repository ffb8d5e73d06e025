import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import L1, L2, ImageRandom, Linf, cross_entropy, margin, targeted
from robust_attacks.universal import Epoch, Universal, UniversalPerturbation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SHAPE = (2, 4, 4)


def batch(count=12, seed=0, low=0.3, high=0.7):
    generator = torch.Generator().manual_seed(seed)
    images = low + (high - low) * torch.rand((count, *SHAPE), generator=generator)
    return images, torch.randint(3, (count,), generator=generator)


def centred(rows, seed=0):
    """A bumpy model whose classes are about equally likely around the images of `batch`, with losses near log 3."""
    inner = rows(SHAPE, seed)
    mean = inner(batch(200, seed=99)[0]).mean(dim=0).detach()
    return lambda images: (inner(images) - mean) / 4


def pieces(images, labels, size=4):
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_it_reaches_the_worst_change_of_a_linear_model(loss, linear):
    """The worst for one image is the worst for all: -eps sign(w), and -eps w / ||w||."""
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images, labels = batch()[0], torch.ones(12, dtype=torch.int64)
    weight = model.weight.detach()
    model.bias = 0.5 - float(model.value(images).detach().mean())
    for threat, expected in (
        (Linf(eps=0.2), -0.2 * weight.sign()),
        (L2(eps=0.4), -0.4 * weight / weight.norm()),
    ):
        attack = Universal(threat=threat, loss=loss, epochs=20, ceiling=None)
        found = attack.fit(model, pieces(images, labels))
        torch.testing.assert_close(found.delta.double(), expected, rtol=1e-5, atol=1e-7)
        flipped = (model.value(images) > 0) != (model.value(images + expected.float()) > 0)
        assert found.fooling_rate == float(flipped.double().mean())
        assert 0 < found.fooling_rate < 1


def test_the_steps_are_those_of_the_algorithm(rows):
    """Three batches, two epochs, with the clip in the way, against the algorithm written out."""
    model = centred(rows)
    images, labels = batch(low=-0.2, high=1.2)
    images = images.clamp(0, 1).double()
    for threat in (Linf(eps=0.1), L2(eps=0.3)):
        delta = torch.zeros(SHAPE, dtype=torch.float64)
        for _ in range(2):
            for some, truth in pieces(images, labels):
                change = delta.clone().requires_grad_()
                total = some + change
                points = torch.where((total >= 0) & (total <= 1), total, total.detach().clamp(0, 1))
                losses = nn.functional.cross_entropy(model(points), truth, reduction="none")
                (gradient,) = torch.autograd.grad(losses.clamp(max=1.5).sum(), change)
                if isinstance(threat, Linf):
                    delta = (delta + 0.04 * gradient.sign()).clamp(-0.1, 0.1)
                else:
                    delta = delta + 0.04 * gradient / gradient.norm()
                    delta = delta * min(1.0, 0.3 / float(delta.norm()))
        found = Universal(threat=threat, epochs=2, step_size=0.04, ceiling=1.5).fit(model, pieces(images, labels))
        torch.testing.assert_close(found.delta, delta.float(), rtol=0, atol=1e-7)


def test_the_ceiling_keeps_images_that_are_won_from_ruling_the_sum():
    """One image, far beyond the ceiling, pulls one way ten times as hard as the other pulls the other way."""

    def model(images):
        x = images.flatten(1)
        return torch.stack((x[:, 0] * 0, torch.where(x[:, 1] > 0.5, 20 + 10 * x[:, 0], -x[:, 0])), dim=1)

    images = torch.tensor([[0.5, 0.9], [0.5, 0.1]]).reshape(2, 1, 1, 2)
    labels = torch.zeros(2, dtype=torch.int64)
    for ceiling, sign in ((None, 1), (9.0, -1)):
        found = Universal(threat=Linf(eps=0.1), ceiling=ceiling).fit(model, [(images, labels)])
        assert torch.equal(found.delta.sign().flatten(), torch.tensor([float(sign), 0.0]))


def test_a_targeted_loss_takes_the_set_towards_its_labels(rows):
    model = centred(rows)
    images, _ = batch(40)
    targets = torch.full((40,), 2)
    before = float((model(images).argmax(1) == 2).double().mean())
    epochs = []
    attack = Universal(threat=Linf(eps=0.3), loss=targeted(cross_entropy))
    found = attack.fit(model, pieces(images, targets), progress=epochs.append)
    after = float((model(found.apply(images)).argmax(1) == 2).double().mean())
    assert before < 0.8 < after
    assert epochs[-1].success > 0.8


def test_progress_tells_every_epoch(rows):
    model = rows(SHAPE)
    images, labels = batch()
    labels = model(images).argmax(1)
    epochs = []
    Universal(threat=Linf(eps=0.1), epochs=3, step_size=1e-6).fit(model, pieces(images, labels), progress=epochs.append)
    assert [(one.number, one.epochs, one.success) for one in epochs] == [(1, 3, 0.0), (2, 3, 0.0), (3, 3, 0.0)]
    clean = float(cross_entropy(model(images), labels).detach().mean())
    assert epochs[0].loss == pytest.approx(clean, abs=1e-4)
    assert epochs[0].loss < epochs[1].loss < epochs[2].loss
    assert all(isinstance(one, Epoch) for one in epochs)


def test_a_dataset_is_shuffled_by_the_seed_and_by_nothing_else(rows):
    data = TensorDataset(*batch(40))
    attack, model = Universal(threat=Linf(eps=0.05), epochs=2, step_size=0.02), rows(SHAPE)
    found = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed)
        found.append(attack.fit(model, data, seed=seed, batch_size=3).delta)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_every_epoch_of_a_dataset_has_every_image_once_in_an_order_of_its_own():
    images = (torch.arange(10) / 16).reshape(10, 1, 1, 1).expand(10, 1, 1, 2)
    seen = []

    def model(images):
        seen.extend((16 * images[:, 0, 0, 1]).round().int().tolist())
        return torch.stack((images[:, 0, 0, 0], 1 - images[:, 0, 0, 0]), dim=1)

    attack = Universal(threat=Linf(eps=1e-3), epochs=2)
    attack.fit(model, TensorDataset(images, torch.zeros(10, dtype=torch.int64)), batch_size=4)
    first, second, judged = seen[:10], seen[10:20], seen[20:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert len({tuple(first), tuple(second), tuple(range(10))}) == 3
    assert sorted(judged) == sorted(2 * list(range(10)))


def test_a_shuffling_loader_draws_its_order_from_the_seed(rows):
    images, labels = batch(40)
    loader = DataLoader(TensorDataset(images, labels), batch_size=3, shuffle=True)
    attack, model = Universal(threat=Linf(eps=0.05), epochs=2, step_size=0.02), rows(SHAPE)
    found = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        found.append(attack.fit(model, loader, seed=seed).delta)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_perturbation_is_an_attack(rows):
    images, labels = batch(20, low=0.0, high=1.0)
    found = Universal(threat=L2(eps=1.0)).fit(rows(SHAPE), pieces(images, labels))
    adversarial = found(rows(SHAPE), images, labels, random=ImageRandom(0))
    torch.testing.assert_close(adversarial, (images + found.delta).clamp(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(adversarial, found.apply(images))
    assert torch.equal(found(rows(SHAPE), images[3:7], labels[3:7]), adversarial[3:7])
    assert found.threat == L2(eps=1.0)
    with pytest.raises(ValueError, match="labels must have shape"):
        found(rows(SHAPE), images, labels[:3])
    with pytest.raises(ValueError, match=r"was made for images of shape \(2, 4, 4\), got \(2, 4, 3\): fit one"):
        found.apply(images[..., :3])
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        found.apply(images * 255)


@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), double=st.booleans(), last=st.booleans())
@pytest.mark.parametrize("make", [Linf, L2])
def test_what_it_makes_is_inside_the_threat(make, seed, eps, double, last):
    images, _ = batch(3, seed=seed % 1000, low=-0.2, high=1.2)
    images = images.clamp(0, 1).double() if double else images.clamp(0, 1)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    threat, given = make(eps=eps), images.clone()
    signs = ImageRandom(seed, torch.zeros(1, dtype=torch.int64)).signs("test", SHAPE)[0]
    delta = eps * signs if make is Linf else eps * signs / signs.norm()
    made = UniversalPerturbation(delta=delta, threat=threat, fooling_rate=0.0).apply(images)
    assert made.dtype == images.dtype
    assert made.stride() == images.stride()
    assert ((made >= 0) & (made <= 1)).all()
    assert (threat.distance(images, made) <= eps * (1 + threat.tolerance)).all()
    assert torch.equal(images, given)


def test_the_perturbation_itself_is_inside_the_ball(linear):
    images, labels = batch()[0], torch.ones(12, dtype=torch.int64)
    for eps in (8 / 255, 0.1, 0.3):
        model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
        delta = Universal(threat=Linf(eps=eps), epochs=20, ceiling=None).fit(model, [(images, labels)]).delta
        assert delta.dtype == torch.float32
        assert float(delta.double().abs().max()) <= eps
        assert float(delta.abs().min()) > eps * (1 - 1e-6)


def test_the_fooling_rate_counts_changed_predictions_right_or_wrong(rows):
    model = centred(rows)
    images, labels = batch(50)
    found = Universal(threat=Linf(eps=0.1)).fit(model, pieces(images, labels))
    changed = model(images).argmax(1) != model(found.apply(images)).argmax(1)
    assert found.fooling_rate == float(changed.double().mean())
    assert 0 < found.fooling_rate < 1
    others, _ = batch(50, seed=1)
    changed = model(others).argmax(1) != model(found.apply(others)).argmax(1)
    rate = found.fooling_rate_on(model, iter(pieces(others, torch.zeros(50, dtype=torch.int64), size=7)))
    assert rate == float(changed.double().mean())
    with pytest.raises(ValueError, match="no images to measure the fooling rate on"):
        found.fooling_rate_on(model, [])


def test_nothing_that_is_given_changes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 4), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten()).train()
    images, labels = batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, given = torch.get_rng_state(), (images.clone(), labels.clone())
    found = [Universal(threat=Linf(eps=0.1), epochs=2).fit(model, pieces(images, labels)) for _ in range(2)]
    rate = found[0].fooling_rate_on(model, pieces(images, labels))
    assert 0 <= rate <= 1
    assert torch.equal(found[0].delta, found[1].delta)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, given[0])
    assert torch.equal(labels, given[1])
    with torch.inference_mode():
        again = Universal(threat=Linf(eps=0.1), epochs=2).fit(model, pieces(images * 1, labels * 1))
    assert torch.equal(again.delta, found[0].delta)


@pytest.mark.parametrize("what", ["logits", "gradients"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_image_takes_no_part_and_is_counted(what, value, linear):
    """An infinite gradient would rule the sum of its batch."""
    inner = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images, labels = batch()[0], torch.ones(12, dtype=torch.int64)
    images[4, 0, 0, 0] = 0.95
    attack = Universal(threat=L2(eps=0.1), epochs=2, ceiling=None)
    expected = attack.fit(inner, [(torch.cat((images[:4], images[5:])), labels[1:])])

    def model(images):
        broken, logits = (images[:, 0, 0, 0] > 0.8)[:, None], inner(images)
        if what == "logits":
            return torch.where(broken, value, logits)
        if logits.requires_grad:  # of one logit: infinite gradients of two may cancel to NaN
            logits.register_hook(lambda gradient: torch.where(broken & (torch.arange(4) == 0), value, gradient))
        return logits

    with pytest.warns(RuntimeWarning, match=r"gradients of 2 of 24 images \(all epochs together\) were not") as caught:
        found = attack.fit(model, [(images, labels)])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    torch.testing.assert_close(found.delta, expected.delta)


def test_a_fit_that_has_moved_may_stand_still_at_its_end(linear, recwarn):
    """All losses end above the ceiling, which takes their gradients."""
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    images, told = batch()[0], []
    model.bias = -float(model.value(images).detach().min())
    attack = Universal(threat=Linf(eps=0.2), ceiling=1.0)
    found = attack.fit(model, [(images, torch.ones(12, dtype=torch.int64))], progress=told.append)
    assert told[-2].loss == told[-1].loss > 1
    assert 0 < float(found.delta.abs().max()) < 0.2
    assert not recwarn.list


def test_a_model_without_gradients_is_pointed_out():
    with pytest.warns(RuntimeWarning, match="no gradient to follow, so its start is all it found") as caught:
        found = Universal(threat=Linf(eps=0.1)).fit(lambda x: x.detach()[:, 0, 0, :3], [batch()])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not found.delta.any()
    assert found.fooling_rate == 0


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (iter([batch()]), ValueError, "got an iterator that ends after once: pass a list, a DataLoader or a Dataset"),
        (batch(), TypeError, r"got one pair: pass \[\(images, labels\)\]"),
        (batch()[0], TypeError, r"a Dataset or an iterable of \(images, labels\), got Tensor"),
        (3, TypeError, "got int"),
        ([], ValueError, "there are no images to fit to in epoch 1: the batches are empty"),
        ([batch(0)], ValueError, "there are no images to fit to in epoch 1: the batches are empty"),
        (TensorDataset(*batch(0)), ValueError, "there are no images to fit to in epoch 1: the batches are empty"),
        ([batch()[0]], TypeError, "every batch must be a pair of images and labels, got Tensor"),
        ([(batch()[0] * 255, batch()[1])], ValueError, r"images must lie in \[0, 1\]"),
        ([(batch()[0], batch()[1][:3])], ValueError, "labels must have shape"),
        ([(batch()[0], batch()[1] + 5)], ValueError, r"labels must lie in 0..2"),
        ([batch(), (batch()[0][..., :3], batch()[1])], ValueError, r"same shape, got \(2, 4, 3\) after \(2, 4, 4\)"),
    ],
)
def test_wrong_batches(batches, error, message, rows):
    with pytest.raises(error, match=message):
        Universal(threat=Linf(eps=0.1)).fit(rows(SHAPE), batches)


def test_a_wrong_batch_size(rows):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Universal(threat=Linf(eps=0.1)).fit(rows(SHAPE), TensorDataset(*batch()), batch_size=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threat": L1(eps=1)}, TypeError, r"threat must be Linf or L2, .*threat=Linf\(eps=8/255\)\), got L1"),
        ({"threat": 0.1}, TypeError, "threat must be Linf or L2.*got 0.1"),
        ({"threat": Linf(eps=(0.1, 0.2))}, TypeError, r"the eps of the threat must be a number, got \(0.1, 0.2\)"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"step_size": -1.0}, ValueError, "step_size must be positive and finite, or None for eps / 10"),
        ({"ceiling": 0}, ValueError, "ceiling must be above 0, and finite, got 0"),
        ({"ceiling": "9"}, TypeError, "ceiling must be a number"),
        ({"loss": targeted}, TypeError, "targeted turns a loss round"),
    ],
)  # fmt: skip
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"Universal: {message}"):
        Universal(**({"threat": Linf(eps=0.1)} | options))


@pytest.mark.shared_data
def test_on_a_real_network_it_fools_more_than_noise_and_images_it_has_not_seen(stored):
    """Fitted to 100 images. Seen: 0.38 of them and 0.36 of 100 others are fooled; by random signs 0.09."""
    model, images, labels, _ = stored("cifar_cnn_a_adv")
    threat = Linf(eps=20 / 255)
    found = Universal(threat=threat).fit(model, TensorDataset(images[:100], labels[:100]), batch_size=20)
    signs = ImageRandom(0, torch.zeros(1, dtype=torch.int64)).signs("test", (3, 32, 32))[0]
    noise = UniversalPerturbation(delta=signs * 0.0784, threat=threat, fooling_rate=0.0)
    rates = [one.fooling_rate_on(model, [(images[100:], labels[100:])]) for one in (found, noise)]
    assert found.fooling_rate > 0.25
    assert rates[0] > max(0.25, 2.5 * rates[1])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_can_be_moved_to_the_device_of_the_model(device, linear):
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))).to(device)
    data = TensorDataset(batch()[0], torch.ones(12, dtype=torch.int64))
    found = Universal(threat=Linf(eps=0.2), ceiling=None).fit(model, data, device=device)
    assert found.delta.device.type == device
    torch.testing.assert_close(found.delta.double(), -0.2 * model.weight.detach().sign(), rtol=1e-5, atol=0)
    assert found.apply(batch()[0]).device.type == "cpu"
