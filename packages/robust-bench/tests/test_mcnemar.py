"""McNemar's exact test against the binomial, its level, and Tango's interval against a search over likelihoods."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.mcnemar import mcnemar
from scipy import optimize, stats

TABLES = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60)).filter(lambda table: sum(table) > 0)
LEVEL = {0.9: 1.6448536269514722, 0.95: 1.959963984540054}


def table_test(only_a, only_b, agreed, confidence=0.95):
    a = [True] * only_a + [False] * only_b + [True] * (agreed // 2) + [False] * (agreed - agreed // 2)
    b = [False] * only_a + [True] * only_b + a[only_a + only_b :]
    return mcnemar(a, b, confidence)


def score(only_a, only_b, count, difference):
    """The statistic of Tango's test, with the likeliest share of only_b searched for."""

    def unlikely(share_b):
        shares = share_b + difference, share_b, 1.0 - 2.0 * share_b - difference
        counts = only_a, only_b, count - only_a - only_b
        return -sum(k * math.log(max(share, 1e-300)) for k, share in zip(counts, shares, strict=True) if k)

    low, high = max(0.0, -difference), (1.0 - difference) / 2.0
    share_b = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = count * (2.0 * share_b + difference * (1.0 - difference))
    return (only_a - only_b - count * difference) / math.sqrt(variance)


@given(TABLES)
def test_the_p_value_is_that_of_a_fair_coin(table):
    only_a, only_b, _ = table
    found = table_test(*table)
    assert (found.only_a, found.only_b, found.count) == (only_a, only_b, sum(table))
    assert found.difference == (only_a - only_b) / sum(table)
    if only_a + only_b:
        assert found.p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue, rel=1e-9)
    else:
        assert found.p_value == 1.0


@pytest.mark.parametrize(("split", "p"), [((6, 0), 2 / 64), ((0, 5), 2 / 32), ((3, 1), 10 / 16), ((4, 4), 1.0)])
def test_small_p_values_by_hand(split, p):
    assert table_test(*split, 10).p_value == pytest.approx(p)


@pytest.mark.parametrize("discordant", [1, 6, 25, 90])
def test_equal_models_are_told_apart_at_most_as_often_as_the_level_says(discordant):
    p_values = [table_test(only_a, discordant - only_a, 0).p_value for only_a in range(discordant + 1)]
    for level in (0.01, 0.05, 0.2):
        chance = sum(
            stats.binom.pmf(only_a, discordant, 0.5) for only_a, p_value in enumerate(p_values) if p_value <= level
        )
        assert chance <= level + 1e-12


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(
    "table", [(6, 0, 4), (1, 7, 13), (40, 20, 100), (6, 16, 139), (0, 0, 30), (3, 3, 1), (0, 9, 91)]
)
def test_the_interval_ends_where_the_score_test_rejects(table, confidence):
    found = table_test(*table, confidence=confidence)
    only_a, only_b, _ = table
    assert score(only_a, only_b, found.count, found.low) == pytest.approx(LEVEL[confidence], abs=1e-5)
    assert score(only_a, only_b, found.count, found.high) == pytest.approx(-LEVEL[confidence], abs=1e-5)


@given(TABLES)
def test_the_interval_contains_the_difference_and_mirrors(table):
    only_a, only_b, agreed = table
    found, mirrored = table_test(only_a, only_b, agreed), table_test(only_b, only_a, agreed)
    assert -1.0 <= found.low <= found.difference <= found.high <= 1.0
    assert found.low < found.high
    assert (mirrored.low, mirrored.difference, mirrored.high) == (-found.high, -found.difference, -found.low)
    assert mirrored.p_value == found.p_value
    wider = table_test(only_a, only_b, agreed, confidence=0.99)
    assert wider.low <= found.low <= found.high <= wider.high


@given(TABLES)
def test_zero_is_inside_where_the_ordinary_test_does_not_reject(table):
    only_a, only_b, _ = table
    if only_a + only_b:
        statistic = abs(only_a - only_b) / math.sqrt(only_a + only_b)
        if abs(statistic - LEVEL[0.95]) > 1e-9:
            found = table_test(*table)
            assert (found.low < 0.0 < found.high) == (statistic < LEVEL[0.95])


def test_closed_forms_at_the_edges():
    z = LEVEL[0.95]
    same = table_test(0, 0, 100)
    assert (same.low, same.high) == (pytest.approx(-(z**2) / (100 + z**2)), pytest.approx(z**2 / (100 + z**2)))
    opposite = table_test(12, 0, 0)
    assert (opposite.low, opposite.high) == (pytest.approx((12 - z**2) / (12 + z**2)), 1.0)
    one = table_test(1, 0, 0)
    assert one.high == 1.0
    assert one.low > -1.0


@pytest.mark.parametrize(("p_a", "p_b"), [(0.1, 0.1), (0.2, 0.05), (0.02, 0.3), (0.0, 0.1)])
def test_covers_the_true_difference_about_as_often_as_stated(p_a, p_b):
    count = 40
    covered = 0.0
    for only_a in range(count + 1):
        for only_b in range(count + 1 - only_a):
            agreed = count - only_a - only_b
            chance = stats.multinomial.pmf([only_a, only_b, agreed], count, [p_a, p_b, 1.0 - p_a - p_b])
            if chance > 1e-6:
                found = table_test(only_a, only_b, agreed)
                covered += chance * (found.low <= p_a - p_b <= found.high)
    assert 0.93 < covered <= 1.0


def test_a_whole_validation_set():
    rng = np.random.default_rng(0)
    a, b = rng.random(50_000) < 0.76, rng.random(50_000) < 0.75
    found = mcnemar(torch.from_numpy(a), b)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    wald = 1.96 * math.sqrt(found.only_a + found.only_b - (found.only_a - found.only_b) ** 2 / 50_000) / 50_000
    assert found.high - found.low == pytest.approx(2 * wald, rel=1e-3)
    assert found.p_value == pytest.approx(stats.binomtest(found.only_a, found.only_a + found.only_b).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([True], [True, False]), ValueError, "correct_a and correct_b must have one entry .*, got 1 of .*, 2 of"),
        (([], []), ValueError, "correct_a is empty"),
        ((["cat"], [True]), TypeError, "correct_a must be boolean, got text"),
        (([True], [2]), ValueError, "correct_b must be boolean"),
        (([True], [True], 95), ValueError, "confidence must lie strictly between 0 and 1, e.g. 0.95, got 95"),
        (([True], [True], 1.0), ValueError, "confidence must lie strictly between 0 and 1"),
    ],
)
def test_refuses_what_cannot_be_compared(arguments, kind, message):
    with pytest.raises(kind, match=message):
        mcnemar(*arguments)
