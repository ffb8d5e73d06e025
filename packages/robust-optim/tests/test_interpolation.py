import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_optim.interpolation import choose_alpha, interpolate
from torch import nn


def states(dtype=torch.float64, shift=0.0):
    """Two state dicts with weights, statistics, a counter and a mask."""
    random = torch.Generator().manual_seed(0)
    return [
        {
            "weight": (torch.randn(3, 4, generator=random) + shift).to(dtype),
            "running_var": torch.rand(4, generator=random).to(dtype),
            "count": torch.tensor(10 + end),
            "mask": torch.tensor([True, end == 1]),
        }
        for end in (0, 1)
    ]


FLOATING, OTHERS = ["weight", "running_var"], ["count", "mask"]


@given(alpha=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_floating_entries_lie_on_the_line_and_others_come_from_b(alpha):
    a, b = states()
    mixed = interpolate(a, b, alpha)
    assert list(mixed) == list(b)
    for name in FLOATING:
        torch.testing.assert_close(mixed[name], (1 - alpha) * a[name] + alpha * b[name], rtol=1e-12, atol=1e-12)
    for name in OTHERS:
        assert torch.equal(mixed[name], b[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2])
def test_the_ends_are_given_back_bit_for_bit(dtype):
    a, b = states(dtype)
    a["weight"][0, 0] = 57344.0  # float8's largest; where b lies far away, rounding would show
    for alpha, end in [(0, a), (1, b), (0.0, a), (1.0, b)]:
        mixed = interpolate(a, b, alpha)
        for name in FLOATING:
            assert mixed[name].dtype == dtype
            assert torch.equal(mixed[name].double(), end[name].double())
        for name in OTHERS:
            assert torch.equal(mixed[name], b[name])


def test_an_end_is_given_back_even_where_the_other_is_not_finite():
    a, b = {"w": torch.tensor([1.0])}, {"w": torch.tensor([float("inf")])}
    assert torch.equal(interpolate(a, b, 0)["w"], a["w"])
    assert torch.equal(interpolate(b, a, 1)["w"], a["w"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_mixed_in_float32_and_rounded_once(dtype):
    a, b = states(dtype, shift=100.0)
    mixed = interpolate(a, b, 0.3)
    for name in FLOATING:
        exact = 0.7 * a[name].double() + 0.3 * b[name].double()
        assert mixed[name].dtype == dtype
        assert torch.equal(mixed[name], exact.float().to(dtype))


def test_complex_entries_are_mixed():
    a, b = {"z": torch.tensor([1 + 2j])}, {"z": torch.tensor([5 - 2j])}
    torch.testing.assert_close(interpolate(a, b, 0.25)["z"], torch.tensor([2 + 1j]))


def test_both_directions_meet():
    a, b = states()
    there, back = interpolate(a, b, 0.3), interpolate(b, a, 0.7)
    for name in FLOATING:
        torch.testing.assert_close(there[name], back[name], rtol=1e-12, atol=1e-12)


def test_models_stay_as_they_are_and_the_result_is_new():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    a, b = model.state_dict(keep_vars=True), other.state_dict()
    before = copy.deepcopy([model.state_dict(), other.state_dict()])
    for alpha in (0, 0.5, 1):
        for tensor in interpolate(a, b, alpha).values():
            assert not tensor.requires_grad
            tensor.zero_()
    for state, old in zip([model.state_dict(), other.state_dict()], before, strict=True):
        assert all(torch.equal(state[name], old[name]) for name in old)


def test_a_model_takes_the_result():
    random = torch.Generator().manual_seed(1)
    a, b, mixed = (nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3, affine=False)) for _ in range(3))
    mixed.load_state_dict(interpolate(a.state_dict(), b.state_dict(), 0.25))
    inputs = torch.randn(5, 3, generator=random)
    expected = 0.75 * a[0](inputs) + 0.25 * b[0](inputs)  # a linear layer is linear in its weights
    torch.testing.assert_close(mixed[0](inputs), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("mask"), "b against a: missing 'mask'"),
        (lambda b: b.update(extra=torch.ones(1)), "unexpected 'extra'"),
        (lambda b: b.update(weight=torch.ones(3, 5)), r"'weight' has shape \(3, 5\) instead of \(3, 4\)"),
        (lambda b: b.update(weight=torch.ones(3, 4)), "'weight' has dtype torch.float32 instead of torch.float64"),
        (lambda b: b.update(count=torch.tensor(1.0)), "'count' has dtype torch.float32 instead of torch.int64"),
        (lambda b: b.update(mask=b["mask"].to("meta")), "'mask' has device meta instead of cpu"),
    ],
    ids=["missing", "unexpected", "shape", "type", "integer", "device"],
)
def test_models_that_do_not_fit_are_refused_with_the_entry(change, message):
    a, b = states()
    change(b)
    for alpha in (0, 0.5, 1):
        with pytest.raises(ValueError, match=f"not of the same model; .*{message}"):
            interpolate(a, b, alpha)


def test_a_long_list_of_differences_is_cut():
    a = {f"layer{i}": torch.ones(1) for i in range(50)}
    with pytest.raises(ValueError, match=r"missing 'layer0', 'layer1', 'layer2', 'layer3' and 46 more; unexpected 'b'"):
        interpolate(a, {"b": torch.ones(1)}, 0.5)
    with pytest.raises(ValueError, match=r"'layer3' has shape \(2,\) instead of \(1,\); \.\.\.$"):
        interpolate(a, {name: torch.ones(2) for name in a}, 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"a position between a \(0\) and b \(1\), got"):
        interpolate(*states(), alpha)


def test_something_else_than_state_dicts_is_refused():
    a, b = states()
    with pytest.raises(TypeError, match=r"a must be a state dict, such as model.state_dict\(\), got Linear"):
        interpolate(nn.Linear(2, 2), b, 0.5)
    with pytest.raises(TypeError, match="b must hold tensors alone, but its entry 'epoch' is of type int: give the"):
        interpolate(a, {**b, "epoch": 3}, 0.5)


# Choosing alpha


def peak_at(best):
    """A held-out accuracy with one peak on the line from 0 to 1."""
    return lambda state: 1 - abs(float(state["w"]) - best)


ENDS = {"w": torch.tensor(0.0)}, {"w": torch.tensor(1.0)}


@pytest.mark.parametrize("best", [0.0, 0.28, 0.5, 0.81, 1.0])
def test_the_best_of_the_positions_is_chosen(best):
    alphas = [1.0, 0.0, 0.25, 0.75, 0.5]
    chosen = choose_alpha(*ENDS, peak_at(best), alphas)
    assert chosen.alpha == min(alphas, key=lambda alpha: abs(alpha - best))
    assert torch.equal(chosen.state["w"], torch.tensor(chosen.alpha))
    assert list(chosen.accuracies) == alphas
    assert chosen.accuracies == {alpha: pytest.approx(1 - abs(alpha - best)) for alpha in alphas}


def test_the_positions_are_tenths_unless_given():
    chosen = choose_alpha(*ENDS, peak_at(0.62))
    assert chosen.alpha == 0.6
    assert list(chosen.accuracies) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_among_equals_the_smallest_wins():
    assert choose_alpha(*ENDS, lambda state: 0.5, alphas=[1.0, 0.25, 0.75]).alpha == 0.25


def test_a_score_may_be_a_tensor():
    assert choose_alpha(*ENDS, lambda state: -(state["w"] - 0.5).abs(), alphas=[0, 0.5, 1]).accuracies == {
        0: -0.5,
        0.5: 0.0,
        1: -0.5,
    }


def test_without_positions_or_accuracy_nothing_is_chosen():
    with pytest.raises(ValueError, match="alphas is empty"):
        choose_alpha(*ENDS, peak_at(0.5), alphas=[])
    with pytest.raises(ValueError, match=r"held-out accuracy of alpha = 0\.5 is nan"):
        choose_alpha(*ENDS, lambda state: float("nan"), alphas=[0.5])
