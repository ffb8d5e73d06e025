import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import ImageRandom, cross_entropy, margin, targeted
from robust_attacks.pyramid import Pyramid, same_noise
from torch import nn

SHAPE = (2, 5, 7)  # no multiple of any cell
SMALL = {"cells": (4, 2, 1), "multipliers": (20.0, 10.0, 1.0)}


def batch(count=12, seed=0, double=True):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand((count, *SHAPE), generator=generator) - 0.2).clamp(0, 1)
    return images.double() if double else images, torch.randint(3, (count,), generator=generator)


def upsampled(grid, cell):
    rows, columns = torch.arange(SHAPE[1]) // cell, torch.arange(SHAPE[2]) // cell
    return grid[:, :, rows][:, :, :, columns]


def reference(model, images, targets, eps=3 / 255, step=0.5 / 255, steps=5):
    """The formula, with autograd through clip and upsampling; what falls is the loss at the targets."""
    count, channels, height, width = images.shape
    grids = [images.new_zeros(count, channels, -(-height // cell), -(-width // cell)) for cell in SMALL["cells"]]

    def perturbed(grids):
        pairs = zip(SMALL["cells"], SMALL["multipliers"], grids, strict=True)
        total = images + sum(m * upsampled(grid, cell) for cell, m, grid in pairs)
        # Not torch's clamp, whose gradient on the faces of the box is 1 in some versions and 0 in others.
        return torch.where((total >= 0) & (total <= 1), total, total.detach().clamp(0, 1))

    for _ in range(steps):
        leaves = [grid.requires_grad_() for grid in grids]
        loss = nn.functional.cross_entropy(model(perturbed(leaves)), targets, reduction="sum")
        gradients = torch.autograd.grad(loss, leaves)
        grids = [(g.detach() - step * d.sign()).clamp(-eps, eps) for g, d in zip(grids, gradients, strict=True)]
    return perturbed(grids)


def test_it_is_the_formula_of_the_paper_with_one_clip(rows):
    model = rows(SHAPE)
    images, labels = batch()
    random = ImageRandom(5, torch.arange(12))
    found = Pyramid(**SMALL)(model, images, labels, random=random)
    targets = random.integers("pyramid/target", 3, 1)[:, 0]
    torch.testing.assert_close(found, reference(model, images, targets), rtol=0, atol=1e-12)
    assert ((found == 0) | (found == 1)).any()  # the clip was in the way


def test_the_cells_of_a_linear_model_follow_the_signs_of_their_sums(linear):
    """Every grid is constant on its cells and `min(steps * step, eps)` in size: a closed form."""
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    labels = torch.ones(2, dtype=torch.int64)
    for steps, size in ((2, 1 / 255), (5, 2.5 / 255), (9, 3 / 255)):
        attack = Pyramid(**SMALL, steps=steps, random_target=False, loss=margin)
        change = attack(linear(weight), images, labels) - images
        expected = torch.zeros_like(weight)
        for cell, multiplier in zip(SMALL["cells"], SMALL["multipliers"], strict=True):
            for top in range(0, SHAPE[1], cell):
                for left in range(0, SHAPE[2], cell):
                    for channel in range(SHAPE[0]):
                        where = (channel, slice(top, top + cell), slice(left, left + cell))
                        expected[where] -= multiplier * size * weight[where].sum().sign()
        torch.testing.assert_close(change, expected.expand_as(change), rtol=0, atol=1e-12)


def test_the_defaults_are_those_of_the_paper_halved():
    attack = Pyramid()
    assert (attack.cells, attack.multipliers, attack.steps) == ((32, 16, 1), (20.0, 10.0, 1.0), 5)
    assert attack.eps == 3 / 255
    assert attack == Pyramid(step_size=None)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 33, 4))
    images, labels = torch.rand((2, 3, 40, 33), generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    explicit = Pyramid(step_size=0.5 / 255)
    found = [one(model, images, labels, random=ImageRandom(0)) for one in (attack, explicit)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_targets_are_drawn_by_each_image_from_all_classes(rows):
    seen = []

    def spying(logits, targets):
        seen.append(targets.clone())
        return cross_entropy(logits, targets)

    images, labels = batch(count=3000)
    ids = torch.arange(3000) + 17
    attack = Pyramid(**SMALL, steps=2, loss=spying)
    attack(rows(SHAPE), images, labels, random=ImageRandom(1, ids))
    assert torch.equal(seen[0], seen[1])  # one target for all steps
    assert torch.bincount(seen[0], minlength=3).sub(1000).abs().max() < 130  # five standard deviations
    assert 0.28 < float((seen[0] == labels).double().mean()) < 0.39  # the own class is one of them
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    attack(rows(SHAPE), images[order], labels[order], random=ImageRandom(1, ids[order]))
    assert torch.equal(seen[2], seen[0][order])


def test_it_falls_towards_the_target_and_leaves_given_labels_alone(rows):
    model = rows(SHAPE)
    images, labels = batch()
    random = ImageRandom(2, torch.arange(12))
    targets = random.integers("pyramid/target", 3, 1)[:, 0]
    found = Pyramid(**SMALL)(model, images, labels, random=random)
    assert (cross_entropy(model(found), targets) < cross_entropy(model(images), targets)).all()
    assert torch.equal(found, Pyramid(**SMALL)(model, images, (labels + 1) % 3, random=random))


def test_every_batch_size_and_order_gives_the_same_images(rows):
    images, labels = batch(count=24, double=False)
    attack, random, model = Pyramid(**SMALL), ImageRandom(7, torch.arange(24) * 9), rows(SHAPE)
    whole = attack(model, images, labels, random=random)
    for size in (1, 5):
        parts = [attack(model, images[p], labels[p], random=random[p]) for p in torch.arange(24).split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])


@pytest.mark.parametrize("steps", [1, 5])
def test_it_costs_exactly_the_steps(steps, rows):
    model, passes = rows(SHAPE), {"forward": 0, "backward": 0}

    def counted(images):
        passes["forward"] += 1
        images.register_hook(lambda _: passes.update(backward=passes["backward"] + 1))
        return model(images)

    Pyramid(**SMALL, steps=steps)(counted, *batch())
    assert passes == {"forward": steps, "backward": steps}


class Masked(nn.Module):
    """Dropout, stochastic depth of whole rows, and a batch norm; it remembers every mask that it draws."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Linear(2 * 5 * 7, 3)
        self.masks = []

    def forward(self, images):
        depth = torch.empty(len(images), 1, 1, 1, device=images.device)
        depth = depth.bernoulli_(0.7) if self.training else torch.ones_like(depth)
        mask = self.drop(torch.ones_like(images))
        self.masks.append((mask * depth).detach())
        return self.head((self.norm(images) * mask * depth).flatten(1))


def masked_model(device="cpu"):
    torch.manual_seed(0)
    return Masked().to(device).train()


def passes_of_a_training_step(device):
    """The masks of the attack's passes and of the clean and the adversarial pass of the caller."""
    model = masked_model(device)
    images, labels = (part.to(device) for part in batch(double=False))
    random = ImageRandom(11)
    adversarial = Pyramid(**SMALL)(model, images, labels, random=random)
    for points in (images, adversarial):
        with same_noise(random):
            model(points)
    return model.masks


def test_clean_and_adversarial_passes_draw_the_masks_of_the_attack():
    masks = passes_of_a_training_step("cpu")
    assert len(masks) == 7
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert 0 < float((masks[0] == 0).double().mean()) < 1


@pytest.mark.gpu
def test_clean_and_adversarial_passes_draw_the_masks_of_the_attack_on_the_gpu():
    masks = passes_of_a_training_step("cuda")
    assert len(masks) == 7
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_without_same_noise_the_masks_would_differ():
    model, (images, _) = masked_model(), batch(double=False)
    model(images)
    model(images)
    with same_noise(1):
        model(images)
        model(images)  # a second pass inside goes on drawing
    with same_noise(2):
        model(images)
    assert len({tuple(mask.flatten().tolist()) for mask in model.masks}) == 5


def test_same_noise_gives_the_random_states_back_also_after_an_error():
    before = torch.get_rng_state()
    with same_noise(ImageRandom(3)):
        first = torch.rand(2)
    second = []

    def fails():
        with same_noise(3):
            second.append(torch.rand(2))
            raise ArithmeticError("inside")

    with pytest.raises(ArithmeticError, match="inside"):
        fails()
    assert torch.equal(second[0], first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("given", [None, 1.5, True, "seed"])
def test_same_noise_refuses_what_has_no_seed(given):
    with (
        pytest.raises(TypeError, match="same_noise needs the ImageRandom of the attack or its seed, an int, got"),
        same_noise(given),
    ):
        pass


def test_in_training_mode_nothing_moves_in_the_model():
    model, (images, labels) = masked_model(), batch(double=False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = Pyramid(**SMALL)(model, images, labels, random=ImageRandom(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert int(model.norm.num_batches_tracked) == 0
    assert model.training
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert found.grad_fn is None
    for soft in (False, True):
        given = nn.functional.one_hot(labels, 3).float() if soft else labels
        attack = Pyramid(**SMALL, random_target=False)
        expected = attack(model, images, given, random=ImageRandom(0))
        with torch.inference_mode():
            assert torch.equal(Pyramid(**SMALL)(model, images * 1, given * 1, random=ImageRandom(0)), found)
            assert torch.equal(attack(model, images * 1, given * 1, random=ImageRandom(0)), expected)
    model(images)
    assert int(model.norm.num_batches_tracked) == 1  # an ordinary pass would have moved it


def test_soft_labels_that_are_hard_give_what_hard_labels_give(rows):
    images, labels = batch()
    attack = Pyramid(**SMALL, random_target=False)
    soft = nn.functional.one_hot(labels, 3).double()
    assert torch.equal(attack(rows(SHAPE), images, soft), attack(rows(SHAPE), images, labels))
    mixed = (soft + soft.roll(1, dims=1)) / 2
    found = attack(rows(SHAPE), images, mixed)
    assert not torch.equal(found, attack(rows(SHAPE), images, labels))
    model = rows(SHAPE)
    assert (-(mixed * model(found).log_softmax(1)).sum(1) > -(mixed * model(images).log_softmax(1)).sum(1)).all()
    random = ImageRandom(0)
    random_target = [Pyramid(**SMALL)(model, images, given, random=random) for given in (mixed, labels)]
    assert torch.equal(*random_target)  # there, labels are irrelevant


def test_a_targeted_loss_moves_to_given_targets_and_leaves_those_that_are_there(rows):
    model = rows(SHAPE)
    images, targets = batch(count=30)
    settled = model(images).argmax(dim=1) == targets
    assert 0 < int(settled.sum()) < 30
    found = Pyramid(**SMALL, random_target=False, loss=targeted(cross_entropy))(model, images, targets)
    assert torch.equal((found == images).all(dim=(1, 2, 3)), settled)
    assert (cross_entropy(model(found), targets)[~settled] < cross_entropy(model(images), targets)[~settled]).all()


@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), double=st.booleans(), last=st.booleans())
def test_the_result_is_in_the_box_and_no_further_than_the_levels_reach(rows, seed, eps, double, last):
    images, labels = batch(count=2, seed=seed, double=double)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    step = None if eps else 0.1
    found = Pyramid(cells=(3, 1), multipliers=(0.5, 0.25), eps=eps, step_size=step)(rows(SHAPE), images, labels)
    assert found.dtype == images.dtype
    assert found.stride() == images.stride()
    assert ((found >= 0) & (found <= 1)).all()
    assert ((found.double() - images).abs() <= 0.75 * eps + 1e-6).all()


def test_no_images_make_no_images(rows):
    images, labels = batch(count=0)
    assert Pyramid()(rows(SHAPE), images, labels).shape == (0, *SHAPE)


def test_a_model_without_gradients_is_pointed_out():
    with pytest.warns(RuntimeWarning, match="in a differentiable way") as caught:
        Pyramid(**SMALL)(lambda x: x.detach()[:, 0, 0, :3], *batch())
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cells": (32, 16)}, ValueError, r".*as many, .*got 2 cells \(32, 16\) and 3 multipliers"),
        ({"cells": (), "multipliers": ()}, ValueError, ".*at least one, got 0 cells"),
        ({"cells": 32}, TypeError, r"cells must be a sequence with one entry per grid, as \(32, 16, 1\), got 32"),
        ({"cells": (32, 16, 0)}, ValueError, "every cell side must be at least 1, got 0"),
        ({"cells": (32, 16, 1.0)}, TypeError, "every cell side must be an int, got 1.0"),
        ({"multipliers": (20, 10, 0)}, ValueError, "every multiplier must be above 0, and finite, got 0"),
        ({"multipliers": (20, 10, "1")}, TypeError, "every multiplier must be a number, got '1'"),
        ({"eps": 3.0}, ValueError, "eps must be at least 0 and at most 1, and finite, got 3"),
        ({"eps": (0.1, 0.2)}, TypeError, "eps must be a number, got"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive and finite, or None for eps / 6"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"loss": "ce"}, TypeError, "loss must be a function"),
        ({"loss": targeted(margin)}, ValueError, "random_target turns the loss round itself: pass the plain loss"),
    ],
)  # fmt: skip
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=f"Pyramid: {message}"):
        Pyramid(**options)


def test_it_is_a_value():
    assert Pyramid(cells=[32, 16, 1]) == Pyramid()
    assert hash(Pyramid(eps=0.01)) != hash(Pyramid())
