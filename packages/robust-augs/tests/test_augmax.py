import dataclasses

import pytest
import torch
from robust_augs.augmax import AugMax, MaxDraws
from robust_augs.augmix import AugMix
from robust_augs.chains import apply_chains
from robust_augs.operations import OPERATIONS
from torch import nn
from torch.nn.functional import cross_entropy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=12, side=10):
    random = generator(1)
    return torch.rand(count, 3, side, side, generator=random), torch.randint(5, (count,), generator=random)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 64, 5)
        )


def losses(model, images, labels):
    return cross_entropy(model(images), labels, reduction="none")


def by_hand(augmax, model, image, label, draws, i):
    """The ascent of one image, m and q one after the other, with derivatives from finite differences."""
    levels = (image * 255).round().to(torch.uint8)[None]
    chains = apply_chains(levels, draws.chains[i : i + 1], OPERATIONS)[0].double() / 255

    def mixed(m, q):
        w = torch.tensor(q, dtype=torch.float64).softmax(dim=0)
        return (1 - m) * image.double() + m * torch.einsum("w,wchv->chv", w, chains)

    def loss(m, q):
        return cross_entropy(model(mixed(m, q)[None]), label[None]).item()

    m, q = draws.share[i].item(), draws.scores[i].tolist()
    wrong = 0
    for _ in range(augmax.steps):
        wrong += int(model(mixed(m, q)[None]).argmax() != label)
        if augmax.friendly and wrong >= augmax.tau:
            break
        h = 1e-6
        slope_m = loss(m + h, q) - loss(m - h, q)
        slopes = [
            loss(m, [v + h * (j == k) for j, v in enumerate(q)]) - loss(m, [v - h * (j == k) for j, v in enumerate(q)])
            for k in range(len(q))
        ]
        m = min(max(m + augmax.step_size * ((slope_m > 0) - (slope_m < 0)), 0), 1)
        q = [v + augmax.step_size * ((s > 0) - (s < 0)) for v, s in zip(q, slopes, strict=True)]
    return mixed(m, q)


@pytest.mark.parametrize(
    "augmax", [AugMax(friendly=False), AugMax(), AugMax(tau=2, steps=4)], ids=["plain", "friendly", "tau 2"]
)
def test_equals_the_ascent_by_hand(augmax):
    images, labels = batch(6)
    model = network().double().eval()
    draws = augmax.sample(images.shape, generator(2))
    result = augmax.apply(model, images.double(), labels, draws)
    expected = torch.stack([by_hand(augmax, model, images[i], labels[i], draws, i) for i in range(6)])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_the_ascent_raises_the_loss():
    images, labels = batch(32)
    model = network().eval()
    augmax = AugMax(steps=10, friendly=False)
    draws = augmax.sample(images.shape, generator())
    start = dataclasses.replace(augmax, steps=0).apply(model, images, labels, draws)
    end = augmax.apply(model, images, labels, draws)
    with torch.no_grad():
        change = losses(model, end, labels) - losses(model, start, labels)
    assert change.mean() > 0.01
    assert (change > -1e-4).float().mean() > 0.9


def test_friendly_leaves_what_is_wrong_from_the_start():
    images, labels = batch()
    draws = AugMax().sample(images.shape, generator())
    weight = torch.randn(5, 300, generator=generator(4))

    def model(x):
        return x.flatten(1) @ weight.T

    start = AugMax(steps=0).apply(model, images, labels, draws)
    wrong = model(start).argmax(dim=1) != labels
    result = AugMax().apply(model, images, labels, draws)
    assert 0 < wrong.sum() < 12
    assert torch.equal(result[wrong], start[wrong])
    assert (result[~wrong] != start[~wrong]).flatten(1).any(dim=1).all()
    more = AugMax(tau=3).apply(model, images, labels, draws)
    assert (more[wrong] != start[wrong]).flatten(1).any(dim=1).all()


def test_without_steps_it_is_the_mixture_that_was_drawn():
    images, labels = batch()
    draws = AugMax().sample(images.shape, generator())
    model = network()
    none = AugMax(steps=0).apply(model, images, labels, dataclasses.replace(draws, share=torch.zeros(12)))
    torch.testing.assert_close(none, images)
    far = torch.full((12, 3), -1e4)
    far[:, 1] = 0
    one = AugMax(steps=0).apply(model, images, labels, dataclasses.replace(draws, share=torch.ones(12), scores=far))
    chains = apply_chains((images * 255).round().to(torch.uint8), draws.chains, OPERATIONS)
    torch.testing.assert_close(one, chains[:, 1].float() / 255)


def test_nothing_of_the_model_changes():
    images, labels = batch()
    model = network().train()
    model[1].eval()  # a part that its owner has frozen
    model(images).sum().backward()
    model.get_parameter("0.weight").requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    seen = []
    handle = model[4].register_forward_hook(lambda module, *_: seen.append(module.training))
    before = torch.get_rng_state()
    result = AugMax()(model, images, labels, generator=generator())
    handle.remove()
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == [False] * 5
    assert not result.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == required


def test_modes_come_back_when_the_model_fails():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("out of order")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="out of order"):
        AugMax()(model, *batch())
    assert model.training


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dtypes_come_back_and_the_model_gets_its_own(dtype):
    images, labels = batch()
    images = (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)
    kind = torch.float32 if dtype == torch.uint8 else dtype
    before = images.clone()
    weight = torch.randn(5, 300, generator=generator(4)).to(kind)

    def model(x):
        assert x.dtype == kind
        return x.flatten(1) @ weight.T

    with torch.no_grad():  # the ascent turns gradients on by itself
        result = AugMax(friendly=False)(model, images, labels, generator=generator())
    assert result.dtype == dtype
    assert result.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(result, images)
    limit = 255 if dtype == torch.uint8 else 1
    assert result.min() >= 0
    assert result.max() <= limit
    with torch.no_grad():
        again = AugMax(friendly=False)(model, images, labels, generator=generator())
    assert torch.equal(again, result)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 1, 7, 4), (0, 3, 8, 8)], ids=str)
def test_one_image_one_channel_odd_sides_and_no_image_at_all(shape):
    images = torch.rand(shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0:1].numel() or 192, 2))
    assert AugMax()(model, images, torch.zeros(shape[0], dtype=torch.int64)).shape == shape


def test_images_do_not_influence_each_other():
    images, labels = batch(6)
    model = network().eval()
    draws = AugMax().sample(images.shape, generator())
    together = AugMax().apply(model, images, labels, draws)
    for i in range(6):
        one = slice(i, i + 1)
        alone = MaxDraws(chains=draws.chains[one], share=draws.share[one], scores=draws.scores[one])
        torch.testing.assert_close(AugMax().apply(model, images[one], labels[one], alone)[0], together[i])


def test_chains_are_those_of_augmix_and_the_start_is_uniform():
    shape = torch.Size([20_000, 3, 1, 1])
    draws = AugMax(width=2, depth=2).sample(shape, generator())
    other = AugMix(width=2, depth=2).sample(shape, generator()).chains
    assert {f.name: getattr(draws.chains, f.name).shape for f in dataclasses.fields(other)} == {
        f.name: getattr(other, f.name).shape for f in dataclasses.fields(other)
    }
    for values in (draws.share, draws.scores):
        ordered = values.flatten().double().sort().values
        uniform = (torch.arange(len(ordered)) + 0.5) / len(ordered)
        assert (ordered - uniform).abs().max() < 1.95 / len(ordered) ** 0.5


def test_the_published_settings():
    assert AugMax.published == AugMax(severity=3.0, width=3, depth=-1, steps=5, step_size=0.1, friendly=True, tau=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severity": 0}, "severity must lie"),
        ({"width": 0}, "width must be at least 1"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"step_size": 0.0}, "step_size must be more than 0, got 0.0"),
        ({"tau": 0}, "tau must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AugMax(**settings)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0] * 12, TypeError, r"labels must be a torch.Tensor \(N,\) of int64, got list"),
        (torch.zeros(12), ValueError, r"class indices of 12 images, int64 of shape \(N,\), got torch.float32"),
        (torch.zeros(11, dtype=torch.int64), ValueError, r"got torch.int64 of shape \(11,\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        AugMax()(network(), batch()[0], labels)


def test_images_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        AugMax()(network(), batch()[0] * 2, batch()[1])
