import textwrap

import pytest
import torch
from robust_attacks import L2, ImageRandom, Linf, cross_entropy, margin, targeted
from robust_attacks._patches import Patches
from robust_attacks.patch_fool import PatchFool
from torch import nn
from torch.nn import functional

SHAPE = (3, 12, 12)  # nine patches of side 4


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens):
        seen = self.norms[0](tokens)
        query, key, value = (
            part(seen).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.queries, self.keys, self.values)
        )
        attention = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
        tokens = tokens + self.out((attention @ value).transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norms[1](tokens)), attention


class Transformer(nn.Module):
    """A small vision transformer with a class token that shows its attention."""

    def __init__(self, depth=6, width=16, heads=2, classes=3, seed=0, one_sided=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Conv2d(SHAPE[0], width, 4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, width))
            self.place = nn.Parameter(torch.randn(1, 10, width))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
            self.head = nn.Linear(width, classes)
            for name, parameter in self.named_parameters():
                if "queries" in name or "keys" in name:
                    parameter.data *= 3  # so that attention is not flat
        self.double()
        if not one_sided:  # else one class wins everywhere, whatever a patch may show
            images = torch.rand((100, *SHAPE), generator=torch.Generator().manual_seed(9))
            self.head.bias.data -= self(images)[0].detach().mean(dim=0)

    def forward(self, images):
        tokens = self.embed(2 * images.double() - 1).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(len(tokens), -1, -1), tokens), dim=1) + self.place
        maps = []
        for block in self.blocks:
            tokens, attention = block(tokens)
            maps.append(attention)
        return self.head(tokens[:, 0]), maps


@pytest.fixture(scope="module")
def vit():
    return Transformer().eval()


def batch(model, count, seed=0, dtype=torch.float32):
    """Images, and the classes that the model predicts."""
    images = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    output = model(images)
    return images, (output[0] if isinstance(output, tuple) else output).argmax(dim=1)


def where(images, found):
    """Which of the nine patches differ, bool (N, 9)."""
    return Patches.of("A", images, 4).sums((images != found).double()) > 0


def predictions(model, images):
    return model(images)[0].argmax(dim=1)


@pytest.mark.parametrize("layer", [0, 4])
def test_attention_chooses_the_patches_that_receive_most_of_it(layer, vit):
    images, labels = batch(vit, 6)
    found = PatchFool(patch_size=4, patches=2, layer=layer, steps=2)(vit, images, labels, random=ImageRandom(0))
    attention = vit(images)[1][layer].detach()
    for image in range(6):
        received = [
            sum(float(attention[image, head, query, 1 + patch]) for head in range(2) for query in range(10))
            for patch in range(9)
        ]
        best = sorted(range(9), key=lambda patch: received[patch], reverse=True)[:2]
        assert where(images, found)[image].nonzero()[:, 0].tolist() == sorted(best)


def test_saliency_chooses_the_patch_of_the_largest_gradients(vit):
    images, labels = batch(vit, 6)
    found = PatchFool(patch_size=4, choice="saliency", steps=2)(vit, images, labels, random=ImageRandom(0))
    leaf = images.clone().requires_grad_()
    functional.cross_entropy(vit(leaf)[0], labels, reduction="sum").backward()
    for image in range(6):
        sums = [
            float(leaf.grad[image, :, top : top + 4, left : left + 4].abs().sum())
            for top in range(0, 12, 4)
            for left in range(0, 12, 4)
        ]
        assert where(images, found)[image].nonzero()[:, 0].tolist() == [sums.index(max(sums))]


def test_a_random_choice_is_uniform_and_belongs_to_the_image(vit):
    images, labels = batch(vit, 90)
    attack = PatchFool(patch_size=4, patches=3, choice="random", steps=1)
    found = where(images, attack(vit, images, labels, random=ImageRandom(0)))
    assert (found.sum(dim=1) == 3).all()
    counts = found.sum(dim=0).double()
    assert float(((counts - 30) ** 2 / 30).sum()) < 45  # chi-square of 8 degrees
    part = attack(vit, images[70:73], labels[70:73], random=ImageRandom(0, torch.arange(70, 73)))
    assert torch.equal(where(images[70:73], part), found[70:73])


def by_hand(model, image, label, random, *, patch, steps, weight, pixels=None, pixel_steps=200):
    """Patch-Fool for one image by torch's own Adam, and autograd through the composition of the image."""
    mask = Patches.of("A", image, 4).mask(torch.tensor([[patch]]))
    delta = nn.Parameter(random.uniform("patch-fool/start", SHAPE, dtype=image.dtype))
    optimizer = torch.optim.Adam([delta], lr=0.05, maximize=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    scores = nn.Parameter(random.uniform("patch-fool/scores", (1, *SHAPE[1:]), dtype=image.dtype))
    score_optimizer = torch.optim.Adam([scores], lr=0.01, maximize=True)

    def composed():
        shown = mask.to(image.dtype)
        if pixels is not None:
            threshold = scores.detach()[mask].sort(descending=True).values[pixels - 1]
            hard = (mask & (scores.detach() >= threshold)).to(image.dtype)
            shown = hard + mask * (scores - scores.detach())  # straight through
        return (1 - shown) * image + shown * delta

    variables = [delta] if pixels is None else [delta, scores]
    for step in range(steps):
        logits, maps = model(composed())
        own = torch.autograd.grad(functional.cross_entropy(logits, label), variables, retain_graph=True)
        total = [gradient.clone() for gradient in own]
        for attention in maps[1 : len(maps) // 2]:
            looked = attention[0].mean(dim=0)[:, 1 + patch].log().mean()
            others = torch.autograd.grad(looked, variables, retain_graph=True)
            for index, (gradient, other) in enumerate(zip(own, others, strict=True)):
                inner = (gradient * other).sum()
                if inner < 0:
                    other = other - inner / gradient.square().sum() * gradient
                total[index] += weight * other
        delta.grad = total[0]
        optimizer.step()
        scheduler.step()
        delta.data.clamp_(0, 1)
        if pixels is not None and step < pixel_steps:
            scores.grad = total[1]
            score_optimizer.step()
    return composed().detach()


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize(("pixels", "pixel_steps"), [(None, 200), (6, 200), (6, 3)])
def test_it_is_adam_on_loss_and_attention_without_conflicts(weight, pixels, pixel_steps):
    vit = Transformer(one_sided=True).eval()
    images, labels = batch(vit, 3, dtype=torch.float64)
    random = ImageRandom(1, torch.arange(3))
    attack = PatchFool(
        patch_size=4, steps=8, decay=0.5, decay_every=3, attention_weight=weight, pixels=pixels, pixel_steps=pixel_steps
    )
    found = attack(vit, images, labels, random=random)
    assert torch.equal(predictions(vit, found), labels)
    patches = where(images, found).double().argmax(dim=1)
    for one in range(3):
        expected = by_hand(
            vit, images[one : one + 1], labels[one : one + 1], random[one : one + 1], patch=int(patches[one]),
            steps=8, weight=weight, pixels=pixels, pixel_steps=pixel_steps,
        )  # fmt: skip
        torch.testing.assert_close(found[one : one + 1], expected, rtol=0, atol=1e-9)


def test_it_raises_the_attention_that_its_patch_receives(vit):
    images, _ = batch(vit, 10)
    labels = torch.full((10,), 1)

    def sure(images):  # no gradient from the loss, so that attention is all there is
        logits, maps = vit(images)
        return 0 * logits + 5 * functional.one_hot(labels[: len(logits)], 3), maps

    received = []
    for weight in (0.0, 1.0):
        attack = PatchFool(patch_size=4, steps=40, attention_weight=weight)
        found = attack(sure, images, labels, random=ImageRandom(0))
        patches = where(images, found).double().argmax(dim=1)
        maps = vit(found)[1]
        received.append(
            sum(
                maps[block].mean(dim=1)[torch.arange(10), :, 1 + patches].log().mean(dim=1) for block in (1, 2)
            ).detach()
        )
    assert (received[1] > received[0] + 0.05).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"pixels": 20}, {"threat": Linf(eps=0.1)}], ids=repr)
def test_outside_the_patches_nothing_changes(options, dtype, vit):
    images, labels = batch(vit, 10, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    found = PatchFool(patch_size=4, patches=2, steps=6, **options)(vit, images, labels, random=ImageRandom(0))
    assert (where(images, found).sum(dim=1) == 2).all()
    assert torch.equal(images, before)
    assert (found.dtype, found.requires_grad) == (dtype, False)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("pixels", [1, 7, 32])
def test_the_sparse_variant_changes_at_most_so_many_pixels(pixels, vit):
    images, labels = batch(vit, 10)
    attack = PatchFool(patch_size=4, patches=2, steps=12, pixels=pixels, pixel_steps=9)
    found = attack(vit, images, labels, random=ImageRandom(0))
    counts = (found != images).any(dim=1).sum(dim=(1, 2))
    assert (counts <= pixels).all()
    assert (counts > 0).all()


@pytest.mark.parametrize("pixels", [None, 5])
@pytest.mark.parametrize("make", [Linf, L2])
def test_the_mild_variant_stays_inside_its_radius(make, pixels, vit):
    images, labels = batch(vit, 10)
    eps = torch.linspace(0.02, 0.3, 10)
    attack = PatchFool(patch_size=4, steps=8, threat=make(eps=eps), pixels=pixels)
    found = attack(vit, images, labels, random=ImageRandom(0, torch.arange(10)))
    distance = attack.threat.distance(images, found)
    assert (distance <= eps * (1 + attack.threat.tolerance + 1e-6)).all()
    held = predictions(vit, found) == labels
    if pixels is None:
        assert (distance[held] > 0.9 * eps[held]).all()
    assert (where(images, found).sum(dim=1) == 1).all()


def test_in_one_patch_of_a_linear_model_it_reaches_the_worst_case(linear):
    images = torch.rand((5, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    model.bias = 60.0
    attack = PatchFool(patch_size=4, choice="saliency", steps=60, loss=margin)
    found = attack(model, images, torch.ones(5, dtype=torch.int64), random=ImageRandom(0))
    weight = model.weight.detach()
    best = int(Patches.of("A", images, 4).sums(weight.abs()[None]).argmax())
    mask = Patches.of("A", images, 4).mask(torch.tensor([[best]]))
    assert torch.equal(found, torch.where(mask, (weight < 0).double(), images))


def test_the_first_iterate_that_wins_is_returned(vit):
    images, labels = batch(vit, 30, dtype=torch.float64)
    random = ImageRandom(0, torch.arange(30))
    settings = {"patch_size": 4, "learning_rate": 0.02}
    longest = PatchFool(steps=10, **settings)(vit, images, labels, random=random)
    steps_to_win = torch.full((30,), 99)
    for steps in range(1, 10, 2):
        found = PatchFool(steps=steps, **settings)(vit, images, labels, random=random)
        won = predictions(vit, found) != labels
        torch.testing.assert_close(found[won], longest[won], rtol=0, atol=1e-9)
        steps_to_win[won] = steps_to_win[won].clamp(max=steps)
    assert len(steps_to_win.unique()) >= 3
    assert (predictions(vit, longest) == labels).any()


def test_images_that_are_won_when_clean_come_back(vit):
    images, labels = batch(vit, 8)
    labels[::2] = (labels[::2] + 1) % 3
    found = PatchFool(patch_size=4, steps=3)(vit, images, labels, random=ImageRandom(0))
    assert (found != images).any(dim=(1, 2, 3)).tolist() == [False, True] * 4


def test_a_targeted_attack_goes_to_its_targets(vit):
    images, now = batch(vit, 12)
    targets = (now + torch.arange(12) % 2) % 3
    attack = PatchFool(patch_size=4, patches=9, steps=60, loss=targeted(cross_entropy))
    found = attack(vit, images, targets, random=ImageRandom(0))
    assert torch.equal(found[::2], images[::2])
    assert int((predictions(vit, found) == targets).sum()) >= 11


def test_it_is_stronger_than_noise_in_the_same_patches(vit):
    images, labels = batch(vit, 60)
    wins = []
    for rate in (1e-9, 0.05):
        attack = PatchFool(patch_size=4, steps=20, learning_rate=rate)
        wins.append(int((predictions(vit, attack(vit, images, labels, random=ImageRandom(0))) != labels).sum()))
    assert wins[1] >= wins[0] + 15


@pytest.mark.parametrize("choice", ["saliency", "random"])
@pytest.mark.parametrize("pixels", [None, 4])
def test_nothing_depends_on_the_batch_bit_for_bit(choice, pixels, rows):
    model, random = rows(SHAPE), ImageRandom(7, torch.arange(100, 113))
    images, labels = batch(model, 13)
    attack = PatchFool(patch_size=4, choice=choice, steps=8, pixels=pixels)
    whole = attack(model, images, labels, random=random)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(model, images[order], labels[order], random=random[order]), whole[order])
    for part in (slice(0, 1), slice(1, 5), slice(5, 13)):
        assert torch.equal(attack(model, images[part], labels[part], random=random[part]), whole[part])
    assert not torch.equal(attack(model, images, labels, random=ImageRandom(8)), whole)


def test_with_attention_nothing_depends_on_the_batch_but_rounding(vit):
    images, labels = batch(vit, 9, dtype=torch.float64)
    random = ImageRandom(7, torch.arange(100, 109))
    attack = PatchFool(patch_size=4, steps=8, attention_weight=0.1, threat=Linf(eps=torch.linspace(0.1, 1, 9)))
    whole = attack(vit, images, labels, random=random)
    for one in range(9):
        row = slice(one, one + 1)
        alone = PatchFool(patch_size=4, steps=8, attention_weight=0.1, threat=Linf(eps=float(attack.threat.eps[one])))
        found = alone(vit, images[row], labels[row], random=random[row])
        torch.testing.assert_close(found, whole[row], rtol=0, atol=1e-9)


def test_the_costs_are_those_of_the_docstring(vit):
    images, _ = batch(vit, 4)
    sizes, sure = [], torch.full((4,), 1)

    def model(images):
        sizes.append((len(images), images.requires_grad))
        logits, maps = vit(images)
        return 0.01 * logits + 5 * functional.one_hot(sure[: len(logits)], 3), maps

    PatchFool(patch_size=4, steps=5)(model, images, sure)
    assert sizes == [(4, False)] + [(4, True)] * 5 + [(4, False)]


def test_without_maps_the_loss_is_climbed_alone(vit):
    images, labels = batch(vit, 5, dtype=torch.float64)
    attack = PatchFool(patch_size=4, choice="saliency", steps=5, attention_weight=0.5)
    plain = PatchFool(patch_size=4, choice="saliency", steps=5, attention_weight=0.0)
    found = attack(lambda images: vit(images)[0], images, labels, random=ImageRandom(0))
    assert torch.equal(found, plain(vit, images, labels, random=ImageRandom(0)))
    assert not torch.equal(found, attack(vit, images, labels, random=ImageRandom(0)))


def test_model_and_random_states_stay():
    model = Transformer()
    model.embed = nn.Sequential(model.embed, nn.Dropout(0.1), nn.BatchNorm2d(16).double())
    images, labels = batch(model.eval(), 4)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():
        found = PatchFool(patch_size=4, steps=3)(model, images, labels, random=ImageRandom(0))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not found.is_inference()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_is_a_value_with_the_settings_of_the_paper():
    assert PatchFool() == PatchFool(
        patches=1, patch_size=16, layer=4, steps=250, learning_rate=0.05, decay=0.95, decay_every=10,
        attention_weight=0.002, pixel_rate=0.01, pixel_steps=200,
    )  # fmt: skip
    assert hash(PatchFool(threat=Linf(eps=0.1))) != hash(PatchFool(threat=Linf(eps=0.2)))


def test_no_images_are_no_work(vit):
    assert PatchFool(patch_size=4)(vit, torch.rand(0, *SHAPE), torch.zeros(0, dtype=torch.int64)).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": 0}, "PatchFool: patches must be at least 1"),
        ({"patch_size": 0}, "PatchFool: patch_size must be at least 1"),
        ({"choice": "best"}, 'PatchFool: choice must be "attention", "saliency" or "random", got'),
        ({"layer": -1}, "PatchFool: layer must be at least 0"),
        ({"prefix_tokens": 1.0}, "PatchFool: prefix_tokens must be an int"),
        ({"steps": 0}, "PatchFool: steps must be at least 1"),
        ({"learning_rate": 0}, "PatchFool: learning_rate must be .*above 0"),
        ({"decay": 1.5}, "PatchFool: decay must be .*at most 1"),
        ({"decay_every": 0}, "PatchFool: decay_every must be at least 1"),
        ({"attention_weight": -1}, "PatchFool: attention_weight must be .*at least 0"),
        ({"pixels": 257}, r"PatchFool: pixels must be in 1\.\.256"),
        ({"pixel_rate": "fast"}, "PatchFool: pixel_rate must be a number"),
        ({"pixel_steps": 0}, "PatchFool: pixel_steps must be at least 1"),
        ({"threat": 0.1}, "PatchFool: threat must say norm and radius"),
        ({"loss": "ce"}, "PatchFool: loss must be a function"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PatchFool(**options)


def test_wrong_calls_are_refused(vit):
    images, labels = batch(vit, 2)
    with pytest.raises(ValueError, match="PatchFool: images of 12 x 12 pixels do not divide into patches of 16 x 16"):
        PatchFool()(vit, images, labels)
    with pytest.raises(ValueError, match="PatchFool: 10 patches were asked of images that have 9"):
        PatchFool(patch_size=4, patches=10)(vit, images, labels)
    with pytest.raises(ValueError, match='choice="attention" needs attention maps'):
        PatchFool(patch_size=4)(lambda images: vit(images)[0], images, labels)
    with pytest.raises(ValueError, match="layer 6 was asked for, but the model returned the maps of 6 blocks"):
        PatchFool(patch_size=4, layer=6)(vit, images, labels)
    with pytest.raises(
        ValueError, match=r"must have shape .* \(2, heads, 9, 9\), for 0 prefix tokens and 3 x 3 patches"
    ):
        PatchFool(patch_size=4, prefix_tokens=0)(vit, images, labels)
    with pytest.raises(ValueError, match="attention of block 1 does not depend on the images in a differentiable way"):
        PatchFool(patch_size=4)(
            lambda images: (vit(images)[0], [one.detach() for one in vit(images)[1]]), images, labels
        )
    with pytest.raises(TypeError, match=r"the model must return logits .* it returned a tuple of 3"):
        PatchFool(patch_size=4)(lambda images: (*vit(images), None), images, labels)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        PatchFool(patch_size=4)(vit, images * 2, labels)
    with pytest.raises(ValueError, match="eps for 3 images, but 2 images were given"):
        PatchFool(patch_size=4, threat=Linf(eps=[0.1] * 3))(vit, images, labels)


@pytest.mark.parametrize("prefix", [0, 1, 5], ids=["pooled", "class token", "registers"])
def test_the_wrapper_of_the_docstring_shows_the_attention_of_timm(prefix):
    """Without a class token timm pools by attention, too, which must be left alone."""
    transformer = pytest.importorskip("timm.models.vision_transformer").VisionTransformer
    lines = PatchFool.__doc__.partition("        class WithAttention")[1:]
    code = "".join(lines).partition("\n\n    Without attention maps")[0]
    names = {"torch": torch}
    exec(textwrap.dedent(code), names)
    torch.manual_seed(0)
    vit = transformer(
        img_size=12, patch_size=4, embed_dim=16, depth=6, num_heads=2, num_classes=3,
        class_token=prefix > 0, reg_tokens=max(prefix - 1, 0), global_pool="token" if prefix else "map",
    ).eval()  # fmt: skip
    images, labels = batch(vit, 4)
    with torch.no_grad():
        expected = vit(images)
        model = names["WithAttention"](vit)
        logits, maps = model(images)
    torch.testing.assert_close(logits, expected)
    assert [tuple(one.shape) for one in maps] == [(4, 2, 9 + prefix, 9 + prefix)] * 6
    torch.testing.assert_close(maps[3].sum(dim=3), torch.ones(4, 2, 9 + prefix))
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    options = {"patch_size": 4, "prefix_tokens": prefix, "steps": 4}
    found = [
        PatchFool(**options, attention_weight=weight)(model, images, labels, random=ImageRandom(0))
        for weight in (0.0, 1.0)
    ]
    assert all((where(images, one).sum(dim=1) == 1).all() for one in found)
    assert not torch.equal(*found)
    assert not any(len(module._forward_hooks) for module in vit.modules())
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())


@pytest.mark.gpu
def test_the_gpu_attacks_the_same():
    model = Transformer().eval()
    images, labels = batch(model, 16, dtype=torch.float64)
    attack = PatchFool(patch_size=4, steps=25)
    here = attack(model, images, labels, random=ImageRandom(0))
    there = attack(model.cuda(), images.cuda(), labels.cuda(), random=ImageRandom(0))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)
