import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import cross_entropy, dlr, margin, succeeded, targeted
from robust_attacks.losses import predicted

LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@st.composite
def answers(draw):
    k = draw(st.integers(3, 6))
    number = st.floats(-50, 50, width=32)
    rows = draw(st.lists(st.tuples(st.lists(number, min_size=k, max_size=k), st.integers(0, k - 1)), min_size=1))
    return torch.tensor([row for row, _ in rows], dtype=torch.float64), torch.tensor([label for _, label in rows])


@given(answer=answers())
def test_losses_equal_their_formulas_in_plain_python(answer):
    logits, labels = answer
    for z, y, ce, m, d in zip(
        logits.tolist(), labels.tolist(), *(loss(logits, labels).tolist() for loss in LOSSES.values()), strict=True
    ):
        other = max(value for i, value in enumerate(z) if i != y)
        top = sorted(z, reverse=True)
        assert ce == pytest.approx(max(z) + math.log(sum(math.exp(v - max(z)) for v in z)) - z[y], abs=1e-9)
        assert m == other - z[y]
        assert d == pytest.approx((other - z[y]) / (top[0] - top[2] + 1e-12), rel=1e-9)


def test_negative_logits_do_not_let_a_masked_zero_win():
    logits, labels = torch.tensor([[-5.0, -1.0, -9.0]]), torch.tensor([1])
    assert margin(logits, labels).tolist() == [-4.0]
    assert margin(logits, torch.tensor([2])).tolist() == [8.0]


@each_loss
@given(answer=answers())
def test_a_targeted_loss_is_the_loss_turned_round(loss, answer):
    logits, labels = answer
    assert torch.equal(targeted(loss)(logits, labels), -loss(logits, labels))


@each_loss
def test_a_loss_keeps_images_apart(loss):
    logits = torch.randn((5, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    (gradient,) = torch.autograd.grad(loss(logits, labels)[2], logits)
    assert gradient[2].abs().sum() > 0
    assert gradient[[0, 1, 3, 4]].abs().sum() == 0


@given(answer=answers())
def test_the_margin_is_positive_where_the_image_is_misclassified(answer):
    logits, labels = answer
    wrong = succeeded(margin, logits, labels)
    values = margin(logits, labels)
    assert wrong[values > 0].all()
    assert not wrong[values < 0].any()


def test_the_lowest_of_equal_classes_is_predicted():
    logits = torch.tensor([[1.0, 3.0, 3.0], [3.0, 3.0, 3.0], [0.0, 1.0, 2.0]])
    assert predicted(logits).tolist() == [1, 0, 2]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_non_finite_logits_never_succeed(broken):
    for place in range(3):
        logits = torch.tensor([[0.0, 1.0, 2.0]])
        logits[0, place] = broken
        for label in range(3):
            assert not succeeded(cross_entropy, logits, torch.tensor([label]))
            assert not succeeded(targeted(cross_entropy), logits, torch.tensor([label]))


def test_success_follows_the_loss():
    logits, labels = torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([1, 1])
    assert succeeded(cross_entropy, logits, labels).tolist() == [False, True]
    assert succeeded(targeted(margin), logits, labels).tolist() == [True, False]


def test_targeted_losses_are_values():
    assert targeted(margin) == targeted(margin)
    assert targeted(margin) != targeted(cross_entropy)
    with pytest.raises(TypeError, match="is targeted already"):
        targeted(targeted(margin))


def test_dlr_needs_three_classes():
    with pytest.raises(ValueError, match="dlr needs at least 3 classes, the logits have 2: use margin"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_loss
@given(answer=answers())
def test_half_precision_logits_are_widened_first(loss, dtype, answer):
    logits, labels = answer
    logits = logits.to(dtype)
    losses = loss(logits, labels)
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert torch.equal(losses, loss(logits.float(), labels))
    assert torch.equal(targeted(loss)(logits, labels), -losses)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_confident_model_in_half_precision_has_a_gradient(dtype):
    logits = torch.tensor([[12.0, 0.0, -1.0]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0])).sum(), logits)
    assert (gradient != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dlr_of_equal_logits_in_half_precision_is_zero(dtype):
    assert dlr(torch.zeros((1, 3), dtype=dtype), torch.tensor([0])).tolist() == [0.0]
