"""Adjusted p values against the step-down procedure itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.holm import holm

SOME = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.012, 0.02, 0.04, 0.05, 0.3, 1.0]), max_size=7)


def rejected(p_values, alpha):
    """Holm's procedure: go up from the smallest while p <= alpha / (number of those that are left)."""
    found = set()
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        if p_values[position] > alpha / (len(p_values) - rank):
            break
        found.add(position)
    return found


@given(SOME, st.sampled_from([0.0037, 0.0501, 0.0999, 0.21]))
def test_rejects_what_the_step_down_procedure_rejects(p_values, alpha):
    adjusted = holm(p_values)
    assert {position for position, value in enumerate(adjusted) if value <= alpha} == rejected(p_values, alpha)


@given(SOME)
def test_laws(p_values):
    adjusted = holm(p_values)
    assert all(p <= value <= min(1.0, p * len(p_values)) for p, value in zip(p_values, adjusted, strict=True))
    assert holm(p_values[::-1]) == adjusted[::-1]  # equal ones get the same
    assert sorted(range(len(p_values)), key=lambda k: (p_values[k], k)) == sorted(
        range(len(p_values)), key=lambda k: (adjusted[k], p_values[k], k)
    )


def test_one_test_alone_is_not_adjusted():
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_an_error(value):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        holm([0.5, value])
