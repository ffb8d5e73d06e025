import pytest
import torch
from robust_attacks import ImageRandom, cross_entropy, targeted
from robust_attacks.universal_patch import TrainedPatch, UniversalPatch, _paste
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


def batches(count=3, size=10, shape=(2, 8, 8), labels=0):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand((size, *shape), generator=generator), torch.full((size,), labels, dtype=torch.int64))
        for _ in range(count)
    ]


def bright(images):
    """Class 0 where the first channel is brighter than the second."""
    value = (images[:, 0] - images[:, 1]).sum(dim=(1, 2))
    return torch.stack((value + 4, -value), dim=1)


def test_on_a_linear_model_every_pixel_goes_to_its_end():
    patch = UniversalPatch(size=(3, 4), epochs=20, scale=(0.5, 1.5), draws=2).fit(bright, batches())
    assert patch.pixels.shape == (2, 3, 4)
    assert not patch.pixels[0].any()
    assert (patch.pixels[1] == 1).all()
    assert 0.1 < patch.success <= 1


def test_a_patch_is_put_on_as_it_is_at_scale_one():
    pixels, images = torch.rand(3, 4, 5), torch.rand(30, 3, 9, 11)
    patch = TrainedPatch(pixels=pixels, scale=(1.0, 1.0), success=0.0)
    found = patch.apply(images, ImageRandom(0, torch.arange(30)))
    places = set()
    for image, result in zip(images, found, strict=True):
        rows, columns = (image != result).any(dim=0).nonzero().T
        top, left = int(rows.min()), int(columns.min())
        places.add((top, left))
        expected = image.clone()
        expected[:, top : top + 4, left : left + 5] = pixels
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
        assert torch.equal(result == image, expected == image)
    assert len(places) > 12  # of 6 * 7


def test_scales_and_places_cover_their_range():
    images = torch.zeros(2000, 1, 12, 12)
    patch = TrainedPatch(pixels=torch.ones(1, 4, 4), scale=(0.5, 2.0), success=0.0)
    found = patch.apply(images, ImageRandom(0)) > 0
    sides = found.any(dim=3).sum(dim=2)[:, 0]
    assert sorted(set(sides.tolist())) == [2, 3, 4, 5, 6, 7, 8]
    assert found.all(dim=1).any(dim=0).all()  # every pixel is covered by some image
    assert torch.equal(found.sum(dim=(1, 2, 3)), sides**2)
    frequencies = found.double().mean(dim=0)[0]
    torch.testing.assert_close(frequencies, frequencies.flip(0), atol=0.05, rtol=0)
    torch.testing.assert_close(frequencies, frequencies.T, atol=0.05, rtol=0)


def test_the_gradient_flows_through_resizing():
    images, numbers = torch.rand(3, 2, 7, 7, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
    pixels = (0.2 + 0.6 * torch.rand(2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda pixels: _paste(images, pixels, (0.7, 2.0), numbers), (pixels,))
    full = torch.ones(2, 3, 3, dtype=torch.float64, requires_grad=True)
    leaving = torch.autograd.grad(_paste(images, full, (0.7, 2.0), numbers).sum(), full)[0]
    assert (leaving > 0.5).all()  # at the border of the box too


def test_resizing_is_that_of_interpolate():
    pixels = torch.rand(2, 4, 4)
    patch = TrainedPatch(pixels=pixels, scale=(2.0, 2.0), success=0.0)
    found = patch.apply(torch.zeros(1, 2, 8, 8))
    torch.testing.assert_close(found, functional.interpolate(pixels[None], size=8, mode="bilinear"), rtol=0, atol=1e-5)


def test_it_fools_a_trained_network_better_than_noise():
    """A small network that tells horizontal from vertical stripes, and patches that must spoil it on other images."""
    generator = torch.Generator().manual_seed(0)

    def stripes(count):
        labels = torch.randint(2, (count,), generator=generator)
        wave = (torch.arange(12) % 4 < 2).float()
        images = torch.where((labels == 0)[:, None, None], wave[:, None], wave[None, :]).expand(count, 12, 12)[:, None]
        return (0.25 + 0.5 * images + 0.25 * torch.rand((count, 1, 12, 12), generator=generator)).clamp(0, 1), labels

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    for _ in range(80):
        images, labels = stripes(64)
        loss = functional.cross_entropy(model(images), labels)
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            parameter.data -= 0.5 * gradient
    images, labels = stripes(200)
    assert float((model(images).argmax(dim=1) == labels).double().mean()) > 0.97
    towards = torch.zeros_like(labels)
    training = [(stripes(50)[0], towards[:50]) for _ in range(3)]
    attack = UniversalPatch(size=8, epochs=20, loss=targeted(cross_entropy))
    patch = attack.fit(model, training)
    noise = TrainedPatch(pixels=torch.rand(1, 8, 8, generator=generator), scale=attack.scale, success=0.0)
    rates = []
    for one in (patch, noise):
        found = one(model, images, labels, random=ImageRandom(0))
        rates.append(float((model(found)[labels == 1].argmax(dim=1) == 0).double().mean()))
    assert rates[0] > 0.8
    assert rates[1] < 0.4
    assert patch.success == pytest.approx((1 + rates[0]) / 2, abs=0.15)  # half of the images are of class 0 already


def test_the_seed_decides_and_nothing_else():
    state = torch.get_rng_state()
    one, two, other = (UniversalPatch(size=3, epochs=2).fit(bright, batches(), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.pixels, two.pixels)
    assert not torch.equal(one.pixels, other.pixels)


def test_applying_belongs_to_the_image_and_changes_no_tensor():
    patch = TrainedPatch(pixels=torch.rand(2, 3, 3), scale=(0.5, 1.5), success=0.0)
    images = torch.rand(9, 2, 8, 8).double().contiguous(memory_format=torch.channels_last).requires_grad_()
    before, random = images.detach().clone(), ImageRandom(1, torch.arange(9))
    whole = patch.apply(images, random)
    assert torch.equal(images, before)
    assert (whole.dtype, whole.requires_grad) == (torch.float64, False)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    order = torch.tensor([7, 0, 3])
    assert torch.equal(patch.apply(images[order], random[order]), whole[order])
    labels = torch.zeros(9, dtype=torch.int64)
    assert torch.equal(patch(None, images, labels, random=random), whole)


def test_the_model_is_left_as_it_was_and_costs_what_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3)
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sizes = []
    hook = model.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    with torch.inference_mode():
        UniversalPatch(size=3, epochs=2, draws=3).fit(model, batches(2, 5))
    hook.remove()
    assert sizes == [5] * 12
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": -1}, "UniversalPatch: size must be at least 1"),
        ({"scale": 0.5}, r"UniversalPatch: scale must be a tuple \(least, largest\)"),
        ({"scale": (0, 1)}, "UniversalPatch: least scale must be .*above 0"),
        ({"scale": (1.5, 1)}, "UniversalPatch: largest scale must be .*at least 1.5"),
        ({"epochs": 0}, "UniversalPatch: epochs must be at least 1"),
        ({"draws": 0}, "UniversalPatch: draws must be at least 1"),
        ({"learning_rate": 0}, "UniversalPatch: learning_rate must be .*above 0"),
        ({"loss": "ce"}, "UniversalPatch: loss must be a function"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        UniversalPatch(**options)


def test_wrong_batches_are_refused():
    attack = UniversalPatch(size=3, epochs=2)
    with pytest.raises(ValueError, match="there are no images to fit to in epoch 1: the batches are empty"):
        attack.fit(bright, [])
    with pytest.raises(ValueError, match="got an iterator that ends after once: pass a list, a DataLoader"):
        attack.fit(bright, iter(batches()))
    with pytest.raises(TypeError, match="every batch must be a pair of images and labels, got Tensor"):
        attack.fit(bright, [batches()[0][0]])
    with pytest.raises(ValueError, match="the patch has 2 channels, the images have 1"):
        attack.fit(lambda images: images.flatten(1)[:, :2], batches() + batches(shape=(1, 8, 8)))
    with pytest.raises(
        ValueError, match=r"a patch of 7 x 7 pixels, enlarged by up to 1.2 to 8 x 8, does not fit into images of 7"
    ):
        UniversalPatch(size=7).fit(bright, batches(shape=(2, 7, 7)))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack.fit(bright, [(torch.rand(2, 2, 8, 8) + 1, torch.zeros(2, dtype=torch.int64))])


def test_a_model_without_gradients_is_pointed_out_once():
    with pytest.warns(RuntimeWarning, match="no gradient to follow, so its start is all it found") as caught:
        UniversalPatch(size=3, epochs=2).fit(lambda images: images.detach().flatten(1)[:, :2], batches())
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_with_broken_gradients_takes_no_part_and_is_counted(value):
    """An infinite gradient would stop Adam for good."""
    given = batches(1)
    given[0][0][3, 0] = 0.99

    def model(images):
        broken, logits = (images[:, 0].mean(dim=(1, 2)) > 0.7)[:, None], bright(images)
        if logits.requires_grad:  # of one logit: infinite gradients of two may cancel to NaN
            logits.register_hook(lambda gradient: torch.where(broken & (torch.arange(2) == 1), value, gradient))
        return logits

    attack = UniversalPatch(size=3, epochs=20, draws=2)
    with pytest.warns(RuntimeWarning, match=r"gradients of 40 of 400 images \(all epochs together\)") as caught:
        patch = attack.fit(model, given)
    assert len(caught) == 1
    assert not patch.pixels[0].any()
    assert (patch.pixels[1] == 1).all()


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_moves_no_random_state_and_draws_its_order_from_the_seed(shuffle):
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = DataLoader(TensorDataset(images, labels), batch_size=4, shuffle=shuffle)
    found = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        found.append(UniversalPatch(size=3, epochs=2).fit(bright, loader, seed=seed).pixels)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_progress_tells_every_epoch_and_a_dataset_will_do():
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    told, sizes = [], []

    def model(images):
        sizes.append(len(images))
        return bright(images)

    attack = UniversalPatch(size=3, epochs=3, learning_rate=0.2)
    patch = attack.fit(model, TensorDataset(images, labels), batch_size=16, progress=told.append)
    assert sizes == [16, 14] * 3
    assert [(one.number, one.epochs) for one in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[0].loss < told[2].loss
    assert patch.success == told[2].success
