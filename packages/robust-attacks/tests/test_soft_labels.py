"""Labels of training attacks: what is let through, and what the messages about the rest say."""

import math

import pytest
import torch
from robust_attacks import ImageRandom, cross_entropy
from robust_attacks._soft_labels import bound, check_training_call
from robust_attacks.discrete import Discrete
from robust_attacks.pyramid import Pyramid

IMAGES = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
SOFT = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]])
ATTACKS = {
    "Pyramid": Pyramid(cells=(2, 1), multipliers=(2, 1), random_target=False),
    "Pyramid, random": Pyramid(cells=(2, 1), multipliers=(2, 1)),
    "Discrete": Discrete(quantiser=lambda images: images),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def value(row, column, number):
    labels = SOFT.clone()
    labels[row, column] = number
    return labels


@each_attack
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (SOFT.half(), TypeError, r"must be float32 or float64, got torch.float16: pass labels.float\(\)"),
        (SOFT[:2], ValueError, r"must have shape \(3, K\), one row of K >= 2 probabilities per image, got \(2, 3\)"),
        (torch.ones(3, 1), ValueError, r"K >= 2 probabilities per image, got \(3, 1\)"),
        (
            value(0, 0, 0.6),
            ValueError,
            r"probabilities, .*a sum that is off by 0.1: logits become them by softmax\(1\)",
        ),
        (value(1, 0, -1.0), ValueError, "got a least value of -1"),
        (value(1, 0, math.nan), ValueError, "got a least value of nan"),
        (torch.eye(4)[:3], ValueError, "soft labels have 4 classes, but the model returns 3 logits per image"),
        (SOFT.to("meta"), ValueError, "labels are on meta, images on cpu"),
        (SOFT[0], TypeError, "labels must be int64 class indices, got torch.float32"),
        (torch.tensor([0, 1, 3]), ValueError, r"labels must lie in 0..2, .*got 0..3"),
        (torch.eye(3).long(), ValueError, "one-hot labels become indices"),
    ],
)
def test_wrong_labels(attack, labels, error, message, rows):
    with pytest.raises(error, match=message):
        attack(rows((1, 4, 4)), IMAGES, labels)


@each_attack
def test_images_are_checked_before_soft_labels(attack, rows):
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack(rows((1, 4, 4)), IMAGES * 255, SOFT)


def test_rounding_of_half_precision_is_let_through():
    mixed = torch.softmax(torch.randn((3, 1000), generator=torch.Generator().manual_seed(0)), dim=1).half().float()
    assert float((mixed.sum(dim=1) - 1).abs().max()) > 1e-6
    hard, random = check_training_call(IMAGES, mixed, ImageRandom(3))
    assert torch.equal(hard, mixed.argmax(dim=1))
    assert random == ImageRandom(3, torch.arange(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_loss_is_that_of_the_distribution_in_the_dtype_of_the_logits(dtype):
    logits = torch.randn((3, 3), generator=torch.Generator().manual_seed(1)).to(dtype)
    losses = bound(cross_entropy, SOFT.double())(logits, torch.zeros(3, dtype=torch.int64))
    wide = logits.to(torch.promote_types(dtype, torch.float32))
    torch.testing.assert_close(losses, -(SOFT * wide.log_softmax(1)).sum(1).to(wide.dtype))


def test_hard_labels_leave_the_loss_as_it_is():
    assert bound(cross_entropy, torch.tensor([0, 1])) is cross_entropy
