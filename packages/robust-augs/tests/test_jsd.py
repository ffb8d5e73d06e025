import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_augs import jensen_shannon


def views(count, seed=0, rows=6, classes=5, scale=2.0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, classes, generator=random, dtype=dtype) * scale for _ in range(count)]


def by_hand(rows):
    """The formula in plain Python floats, for one image."""
    p = []
    for row in rows:
        exps = [math.exp(x - max(row)) for x in row]
        p.append([x / sum(exps) for x in exps])
    mean = [min(max(sum(column) / len(p), 1e-7), 1) for column in zip(*p, strict=True)]
    return sum(sum(x * math.log(x / m) for x, m in zip(q, mean, strict=True) if x > 0) for q in p) / len(p)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_equals_the_formula_in_plain_floats(count):
    logits = views(count)
    expected = [by_hand([view[i].tolist() for view in logits]) for i in range(6)]
    torch.testing.assert_close(jensen_shannon(*logits).tolist(), expected, rtol=1e-12, atol=1e-14)
    single = jensen_shannon(*[view.float() for view in logits])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.tolist(), expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 4), seed=st.integers(0, 999), scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1000.0]))
def test_lies_between_zero_and_the_logarithm_of_the_views_and_is_symmetric(count, seed, scale):
    logits = views(count, seed, scale=scale)
    value = jensen_shannon(*logits)
    assert value.shape == (6,)
    assert (value > -1e-5).all()  # the clamp of the mean at 1e-7 costs no more
    assert (value < math.log(count) + 1e-6).all()
    for order in itertools.permutations(logits):
        torch.testing.assert_close(jensen_shannon(*order), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_is_zero_for_equal_views(scale):
    logits = views(1, scale=scale)[0]
    torch.testing.assert_close(jensen_shannon(logits, logits, logits), torch.zeros(6).double(), rtol=0, atol=1e-6)


def test_the_mean_is_clamped_at_exactly_the_published_1e_7():
    """Equal views would give 0; a class of probability 1e-9 is compared with the clamp instead."""
    logits = torch.tensor([[1 - 1e-9, 1e-9]], dtype=torch.float64).log()
    expected = torch.tensor([1e-9 * math.log(1e-9 / 1e-7)], dtype=torch.float64)
    torch.testing.assert_close(jensen_shannon(logits, logits), expected, rtol=1e-6, atol=0)


def test_reaches_the_logarithm_of_the_views_where_they_are_certain_of_different_classes():
    logits = 1e4 * torch.eye(3)
    torch.testing.assert_close(
        jensen_shannon(*[row.expand(2, 3) for row in logits]), torch.full((2,), math.log(3)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_value_and_gradients_are_finite_at_extreme_logits(size):
    clean = torch.tensor([[size, -size, 0.0], [size, size, size]], requires_grad=True)
    other = torch.tensor([[-size, size, 0.0], [-size, 0.0, size]], requires_grad=True)
    value = jensen_shannon(clean, other)
    assert value.isfinite().all()
    assert value[0].item() == pytest.approx(math.log(2), rel=1e-5)
    value.sum().backward()
    assert clean.grad.isfinite().all()
    assert other.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    logits = views(3, dtype=dtype)
    assert torch.equal(jensen_shannon(*logits), jensen_shannon(*[view.float() for view in logits]))


def test_gradients_flow_into_all_views_and_are_those_of_the_formula():
    logits = [view.requires_grad_() for view in views(3, rows=2)]
    assert torch.autograd.gradcheck(jensen_shannon, logits)


def test_images_do_not_influence_each_other():
    logits = views(3)
    for i in range(6):
        torch.testing.assert_close(
            jensen_shannon(*[view[i : i + 1] for view in logits]), jensen_shannon(*logits)[i, None]
        )


def test_mistakes_are_told():
    good = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="compares views"):
        jensen_shannon(good)
    with pytest.raises(ValueError, match=r"one shape \(N, K\), got \[\(2, 3\), \(2, 4\)\]"):
        jensen_shannon(good, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"got \[\(3,\), \(3,\)\]"):
        jensen_shannon(good[0], good[0])
    with pytest.raises(TypeError, match=r"floating tensors \(N, K\), got torch.int64"):
        jensen_shannon(good, torch.zeros(2, 3, dtype=torch.int64))
    for views in ([good, [[0.0]]], [[[0.0]], good]):
        with pytest.raises(TypeError, match=r"floating tensors \(N, K\), got list"):
            jensen_shannon(*views)
