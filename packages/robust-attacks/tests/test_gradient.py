"""What an attack says about a model without usable gradients: once per call, at the line of the caller."""

import linecache

import pytest
import torch
from robust_attacks import (
    FGSM,
    L1,
    L2,
    MIFGSM,
    NFGSM,
    PGD,
    AdversarialPatch,
    ImageRandom,
    Linf,
    PatchPGD,
    cross_entropy,
    targeted,
)
from robust_attacks._gradient import Objective

ATTACKS = {
    "FGSM": FGSM(threat=Linf(eps=0.1)),
    "FGSM-RS": FGSM(threat=Linf(eps=0.1), random_start=True),
    "N-FGSM": NFGSM(threat=Linf(eps=0.1)),
    "MI-FGSM": MIFGSM(threat=Linf(eps=0.1), steps=4),
    "PGD": PGD(threat=L2(eps=0.1), steps=4),
    "PGD with restarts": PGD(threat=Linf(eps=0.1), steps=4, restarts=3),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
IMAGES = torch.rand((6, 2, 4, 4), generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def only(caught):
    """The one warning, with the text of the line that it points at."""
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert warning.filename == __file__
    return str(warning.message), linecache.getline(warning.filename, warning.lineno)


@each_attack
@pytest.mark.parametrize(
    "model",
    [lambda x: torch.tensor([[1.0, 2.0, 0.0]]).expand(len(x), 3), lambda x: x.detach()[:, 0, 0, :3]],
    ids=["constant", "detached"],
)
def test_a_model_without_gradients_is_pointed_out_once(attack, model):
    with pytest.warns(RuntimeWarning) as caught:
        attack(model, IMAGES, LABELS)  # this line
    message, line = only(caught)
    assert "do not depend on the images in a differentiable way" in message
    assert line.endswith("# this line\n")


def test_without_gradients_the_start_comes_back():
    threat = Linf(eps=0.1)
    with pytest.warns(RuntimeWarning, match="in a differentiable way"):
        found = PGD(threat=threat, steps=1)(lambda x: x.detach()[:, 0, 0, :3], IMAGES, LABELS, random=ImageRandom(0))
    assert torch.equal(found, threat.sample(IMAGES, ImageRandom(0, torch.arange(6)), use="pgd/start"))


@each_attack
@pytest.mark.parametrize("what", ["logits", "gradients"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_without_finite_logits_or_gradients_are_counted_once(attack, what, value, rows):
    inner = rows(tuple(IMAGES.shape[1:]))

    def model(images):
        """Two images, known by a pixel that is left alone, go wrong."""
        marked = (images[:, 0, 0, 0] > 0.8)[:, None]
        logits = inner(images)
        if what == "logits":
            return torch.where(marked, value, logits)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: torch.where(marked, value, gradient))
        return logits

    images = IMAGES.clone()
    images[:, 0, 0, 0] = torch.tensor([1.0, 0.5, 0.5, 0.5, 1.0, 0.5])
    with pytest.warns(RuntimeWarning) as caught:
        found = attack(model, images, LABELS)  # this line
    message, line = only(caught)
    assert "logits or gradients of 2 of 6 images were not finite" in message
    assert line.endswith("# this line\n")
    assert found.isfinite().all()


def test_rows_are_those_of_the_call(rows):
    """Restarts look at some of the images: the count is of images, not of passes."""
    model = rows(tuple(IMAGES.shape[1:]))
    objective = Objective(lambda x: model(x) * torch.nan, cross_entropy, IMAGES)
    for chosen in ([5, 1], [1], [5, 1]):
        objective.focus(torch.tensor(chosen))
        objective.gradient(IMAGES[chosen], LABELS[chosen])
    with pytest.warns(RuntimeWarning, match="of 2 of 6 images"):
        objective.finish(Linf(eps=0.1), IMAGES)


def difference(logits, labels):
    """A loss that is linear in the logits, so that its mean over draws is that of the mean logits."""
    return logits.gather(1, ((labels + 1) % 3)[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("loss", [difference, targeted(difference)], ids=["ordinary", "targeted"])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (FGSM, {"threat": L2(eps=0.2)}),
        (FGSM, {"threat": Linf(eps=0.1), "random_start": True}),
        (NFGSM, {"threat": Linf(eps=0.1)}),
        (MIFGSM, {"threat": L2(eps=0.2), "steps": 4}),
        (PGD, {"threat": L1(eps=2.0), "steps": 4}),
        (PGD, {"threat": Linf(eps=0.03), "steps": 4, "restarts": 3}),
        (PatchPGD, {"threat": Linf(eps=0.2), "patch_size": 2, "share": 0.5, "steps": 4}),
        (AdversarialPatch, {"size": 2, "steps": 4, "restarts": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_draws_of_a_model_that_randomises_are_averaged_for_gradients_and_verdicts(make, options, loss, rows):
    """Then it is attacked as the model of the mean logits, at `eot` passes for every one."""
    models, seen = [rows(tuple(IMAGES.shape[1:]), seed) for seed in range(3)], []

    def in_turn(images):
        seen.append(len(images))
        return models[(len(seen) - 1) % 3](images)

    def mean(images):
        passes.append(len(images))
        return sum(model(images) for model in models) / 3

    passes, images, random = [], torch.rand(20, 2, 4, 4, dtype=torch.float64), ImageRandom(0)
    labels = (mean(images).argmax(dim=1) + torch.arange(20) % 2) % 3  # so that some are won when clean
    passes.clear()
    found = make(**options, loss=loss, eot=3)(in_turn, images, labels, random=random)
    expected = make(**options, loss=loss)(mean, images, labels, random=random)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert seen == [size for size in passes for _ in range(3)]


def test_gradients_and_logits_are_means_and_not_sums(rows):
    model, images = rows(tuple(IMAGES.shape[1:])), IMAGES.double()
    one, several = (Objective(model, cross_entropy, images, eot) for eot in (1, 3))
    for expected, found in zip(one.gradient(images, LABELS), several.gradient(images, LABELS), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(several.logits(images, LABELS), one.logits(images, LABELS), rtol=1e-12, atol=0)


@each_attack
def test_healthy_models_are_met_with_silence(attack, rows, recwarn):
    attack(rows(tuple(IMAGES.shape[1:])), IMAGES, LABELS)
    PGD(threat=L1(eps=1), steps=3)(rows(tuple(IMAGES.shape[1:])), IMAGES, LABELS)
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_attack
def test_a_confident_model_in_half_precision_is_attacked(attack, dtype):
    """At a margin of 12 the cross-entropy of bfloat16 logits would be zero, and its gradient too."""
    weight = torch.ones(IMAGES.shape[1:])

    def model(images):
        value = (images * weight).sum(dim=(1, 2, 3)) - 16
        return torch.stack((value + 12, value * 0), dim=1).to(dtype)

    images = torch.full_like(IMAGES, 0.5)
    found = attack(model, images, torch.zeros(6, dtype=torch.int64))
    assert (found.sum(dim=(1, 2, 3)) < images.sum(dim=(1, 2, 3)) - 0.3).all()


@pytest.mark.gpu
@each_attack
def test_steps_do_not_wait_for_the_gpu(attack, rows):
    model, images, labels = rows(tuple(IMAGES.shape[1:])).cuda(), IMAGES.cuda(), LABELS.cuda()
    objective = Objective(model, cross_entropy, images)
    objective.gradient(images, labels)  # the first pass checks the labels
    everything = torch.arange(6, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective.focus(everything)
        objective.gradient(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
