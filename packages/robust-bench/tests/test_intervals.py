"""Clopper-Pearson against closed forms, the binomial distribution itself, and exact coverage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics import clopper_pearson
from scipy import optimize, stats


@pytest.mark.parametrize("count", [1, 2, 10, 450, 50_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_no_success_and_no_failure_have_closed_forms(count, confidence):
    bound = ((1 - confidence) / 2) ** (1 / count)
    assert clopper_pearson(0, count, confidence) == (0.0, pytest.approx(1 - bound, rel=1e-9))
    assert clopper_pearson(count, count, confidence) == (pytest.approx(bound, rel=1e-9), 1.0)


@given(st.data())
def test_each_end_makes_the_observation_a_tail_of_probability_alpha_over_two(data):
    count = data.draw(st.integers(2, 2000))
    correct = data.draw(st.integers(1, count - 1))
    low, high = clopper_pearson(correct, count)
    assert stats.binom.sf(correct - 1, count, low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(correct, count, high) == pytest.approx(0.025, rel=1e-6)


def test_agrees_with_a_root_search_over_the_binomial():
    low = optimize.brentq(lambda share: stats.binom.sf(292, 450, share) - 0.025, 0.01, 0.99, xtol=1e-12)
    high = optimize.brentq(lambda share: stats.binom.cdf(293, 450, share) - 0.025, 0.01, 0.99, xtol=1e-12)
    assert clopper_pearson(293, 450) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@pytest.mark.parametrize("count", [1, 7, 40])
def test_covers_every_share_with_at_least_the_stated_confidence(count):
    intervals = [clopper_pearson(correct, count) for correct in range(count + 1)]
    for share in [step / 200 for step in range(201)]:
        covered = sum(
            stats.binom.pmf(correct, count, share)
            for correct, (low, high) in enumerate(intervals)
            if low <= share <= high
        )
        assert covered >= 0.95 - 1e-12


@given(st.integers(1, 5000), st.floats(0, 1))
def test_contains_the_share_and_mirrors(count, part):
    correct = round(part * count)
    low, high = clopper_pearson(correct, count)
    assert 0.0 <= low <= correct / count <= high <= 1.0
    other_low, other_high = clopper_pearson(count - correct, count)
    assert (1 - other_high, 1 - other_low) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@pytest.mark.parametrize(
    ("arguments", "word"), [((0, 0), "trial"), ((-1, 3), "0..3"), ((4, 3), "0..3"), ((1, 3, 1.0), "confidence")]
)
def test_refuses_impossible_counts(arguments, word):
    with pytest.raises(ValueError, match=word):
        clopper_pearson(*arguments)
