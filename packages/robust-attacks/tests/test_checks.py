"""Every wrong input is met by a sentence that says what was asked, what was given and what to do."""

import math

import pytest
import torch
from robust_attacks import FGSM, L2, PGD, ImageRandom, Linf
from robust_attacks._checks import check_images, check_labels, check_logits, check_result

IMAGES = torch.full((3, 1, 2, 2), 0.5)
LABELS = torch.tensor([0, 1, 0])
ATTACKS = {"FGSM": FGSM(threat=Linf(eps=0.1)), "PGD": PGD(threat=L2(eps=0.1), steps=2)}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def model(images):
    return images.flatten(1)[:, :2] * 3


def pixel(value):
    images = IMAGES.clone()
    images[1, 0, 1, 0] = value
    return images


@each_attack
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (pixel(1.5), ValueError, r"must lie in \[0, 1\], got \[0.5, 1.5\]: put the mean/std step inside the model"),
        (pixel(-2.117), ValueError, r"images must lie in \[0, 1\], got \[-2.117, 0.5\]"),
        (pixel(math.nan), ValueError, "images must be finite, got NaN or infinite pixels"),
        (pixel(math.inf), ValueError, "images must be finite"),
        (pixel(-math.inf), ValueError, "images must be finite"),
        ((IMAGES * 255).to(torch.uint8), TypeError, r"float32 or float64 in .*got torch.uint8: pass images / 255"),
        (IMAGES.long(), TypeError, "got torch.int64: pass images / 255"),
        (IMAGES.half(), TypeError, "got torch.float16.*images.float().*images / 255"),
        (IMAGES.bfloat16(), TypeError, "got torch.bfloat16"),
        (IMAGES[0], ValueError, r"\(N, C, H, W\), got \(1, 2, 2\): a single image becomes a batch by images\[None\]"),
        (IMAGES[:, :0], ValueError, r"images must have pixels, got shape \(3, 0, 2, 2\)"),
        ([[0.5]], TypeError, "images must be a torch.Tensor, got list"),
    ],
)  # fmt: skip
def test_wrong_images(attack, images, error, message):
    with pytest.raises(error, match=message):
        attack(model, images, LABELS)


@each_attack
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LABELS.int(), TypeError, "labels must be int64 class indices, got torch.int32: pass labels.long()"),
        (LABELS.float(), TypeError, "got torch.float32"),
        (LABELS[:2], ValueError, r"labels must have shape \(3,\), one per image, got \(2,\)"),
        (torch.eye(3).long(), ValueError, r"got \(3, 3\): one-hot labels become indices by labels.argmax\(1\)"),
        (torch.tensor([0, 2, 1]), ValueError, r"labels must lie in 0..1, since the model returns 2 logits, got 0..2"),
        (torch.tensor([0, -1, 1]), ValueError, r"got -1..1"),
        ([0, 1, 0], TypeError, "labels must be a torch.Tensor, got list"),
        (LABELS.to("meta"), ValueError, "labels are on meta, images on cpu: pass labels.to"),
    ],
)
def test_wrong_labels(attack, labels, error, message):
    with pytest.raises(error, match=message):
        attack(model, IMAGES, labels)


@each_attack
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            lambda x: (model(x), x),
            TypeError,
            r"must return logits \(N, K\) as a tensor, it returned a tuple of 2: wrap it",
        ),
        (lambda x: [model(x)], TypeError, "it returned a list of 1"),
        (lambda x: {"logits": model(x), "aux": x}, TypeError, "a dict with the keys logits, aux"),
        (lambda x: None, TypeError, "it returned a NoneType"),
        (lambda x: model(x)[:2], ValueError, "one row of logits per image, it returned 2 rows for 3 images"),
        (lambda x: model(x)[:, :1], ValueError, r"at least 2 logits per image, it returned 1: .*two logits \(0, z\)"),
        (lambda x: model(x)[:, 0], ValueError, r"it returned shape \(3,\) for 3 images: .*two logits \(0, z\)"),
        (lambda x: x, ValueError, r"logits \(N, K\), it returned shape \(3, 1, 2, 2\) for 3 images"),
        (lambda x: model(x).argmax(1, keepdim=True).expand(3, 2), TypeError, "must return float logits .*torch.int64"),
    ],
)
def test_wrong_models(attack, model, error, message):
    with pytest.raises(error, match=message):
        attack(model, IMAGES, LABELS)


@each_attack
def test_wrong_random_and_wrong_radii(attack):
    with pytest.raises(ValueError, match="random has ids of 2 images, but 3 images were given"):
        attack(model, IMAGES, LABELS, random=ImageRandom(0, torch.arange(2)))
    with pytest.raises(ValueError, match="has eps for 2 images, but 3 images were given"):
        type(attack)(threat=Linf(eps=[0.1, 0.2]))(model, IMAGES, LABELS)


@each_attack
@pytest.mark.parametrize(
    ("random", "message"),
    [
        (0, r"random must be an ImageRandom or None, got int: pass random=ImageRandom\(seed=0\)"),
        (7, r"got int: pass random=ImageRandom\(seed=7\)"),
        (torch.Generator(), r"got Generator: pass random=ImageRandom\(seed=0\)"),
    ],
)
def test_randomness_of_another_kind(attack, random, message):
    with pytest.raises(TypeError, match=message):
        attack(model, IMAGES, LABELS, random=random)


@each_attack
def test_a_reduced_loss(attack):
    reduced = type(attack)(threat=attack.threat, loss=lambda logits, labels: logits.mean())
    with pytest.raises(ValueError, match=r'one number per image, shape \(3,\), got \(\): use reduction="none"'):
        reduced(model, IMAGES, LABELS)


@each_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_batch_comes_back_empty(attack, dtype):
    def never(images):
        raise AssertionError("an empty batch needs no model")

    images = torch.zeros((0, 3, 4, 4), dtype=dtype)
    found = attack(never, images, torch.zeros(0, dtype=torch.int64))
    assert found.shape == images.shape
    assert found.dtype == dtype
    assert found is not images


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_the_range_are_allowed(value):
    check_images(torch.full((1, 1, 1, 1), value))


def test_checks_let_pass_what_is_right():
    check_images(IMAGES.double())
    check_labels(LABELS, IMAGES, classes=2)
    check_logits(torch.zeros(3, 2), IMAGES)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.1), Linf(eps=[0.1, 0.0, 0.1])], ids=repr)
def test_a_result_outside_the_threat_is_an_internal_error(threat, place):
    adversarial = IMAGES.clone()
    assert check_result(threat, IMAGES, adversarial) is adversarial
    for wrong in (0.5 + 0.1001, math.nan, math.inf, -0.1):
        adversarial = IMAGES.clone()
        adversarial[place, 0, 0, 0] = wrong
        with pytest.raises(RuntimeError, match="internal error: the attacked images leave L"):
            check_result(threat, IMAGES, adversarial)


def test_the_box_is_checked_even_where_the_ball_is_larger():
    images = torch.ones(1, 1, 1, 2)
    with pytest.raises(RuntimeError, match="or the box"):
        check_result(Linf(eps=0.5), images, images + torch.finfo(torch.float32).eps)


def test_linf_has_no_tolerance_and_l2_one_of_a_millionth():
    images = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="leave Linf by"):
        check_result(Linf(eps=0.25), images, torch.nextafter(images + 0.25, images + 1))
    check_result(L2(eps=0.25), images, images + 0.25 * (1 + 9e-7))
    with pytest.raises(RuntimeError, match="leave L2 by"):
        check_result(L2(eps=0.25), images, images + 0.25 * (1 + 2e-6))


@pytest.mark.parametrize("wrong", [IMAGES.double(), IMAGES[:2]], ids=["dtype", "shape"])
def test_a_result_of_another_shape_or_dtype_is_an_internal_error(wrong):
    with pytest.raises(RuntimeError, match=r"internal error: the attack turned torch\.float32"):
        check_result(Linf(eps=0.1), IMAGES, wrong)


def test_a_result_comes_back_in_the_memory_layout_of_the_images():
    images = torch.rand((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    wide = images.contiguous(memory_format=torch.channels_last)
    found = check_result(Linf(eps=0.1), wide, images)
    assert found.stride() == wide.stride() != images.stride()
    assert torch.equal(found, images)


@pytest.mark.gpu
@each_attack
def test_labels_on_another_device(attack):
    with pytest.raises(ValueError, match=r"labels are on cpu, images on cuda:0: pass labels.to\(images.device\)"):
        attack(model, IMAGES.cuda(), LABELS)
