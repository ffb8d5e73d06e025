"""Error consistency against Cohen's kappa, published answers of people and models, laws, and matching by stimulus."""

import csv
import json
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.consistency import (
    accuracy_difference,
    error_consistency,
    expected_consistency,
    observed_consistency,
)
from sklearn.metrics import cohen_kappa_score

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)
MEASURES = [error_consistency, observed_consistency, expected_consistency, accuracy_difference]


def edge_answers(shared):
    """Who is right on which of the 160 edge drawings; `na` is wrong."""
    with (shared / "metrics" / "edge_responses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    observers = [name for name in rows[0] if name not in ("stim", "category")]
    return {name: {row["stim"]: row[name] == row["category"] for row in rows} for name in observers}


@pytest.mark.shared_data
def test_the_published_answers_to_edge_drawings_give_the_published_kappas(shared):
    answers = edge_answers(shared)
    people = [name for name in answers if name.startswith("subject")]
    assert len(people) == 10

    def mean(pairs):
        return np.mean([error_consistency(answers[one], answers[other]) for one, other in pairs])

    assert mean(combinations(people, 2)) == pytest.approx(0.31844, abs=5e-6)
    assert mean(("resnet50", person) for person in people) == pytest.approx(0.04526, abs=5e-6)
    assert mean(("resnet50_train_60_epochs", person) for person in people) == pytest.approx(0.10677, abs=5e-6)


@pytest.mark.shared_data
def test_every_pair_on_edge_drawings(shared):
    answers = edge_answers(shared)
    expected = json.loads((shared / "metrics" / "error_consistency_expected.json").read_text(encoding="utf-8"))["edge"]
    assert len(expected["pairs"]) == 66
    for pair, (kappa, observed, by_chance) in expected["pairs"].items():
        one, other = (answers[name] for name in pair.split("|"))
        assert len(one) == expected["n_trials"]
        assert error_consistency(one, other) == pytest.approx(kappa, abs=1e-6)
        assert observed_consistency(one, other) == pytest.approx(observed, abs=1e-6)
        assert expected_consistency(one, other) == pytest.approx(by_chance, abs=1e-6)
        in_order = [list(one.values()), list(other.values())]
        assert error_consistency(*in_order) == error_consistency(one, other)


@given(PAIRS)
def test_is_cohens_kappa(pairs):
    a, b = zip(*pairs, strict=True)
    if len({*a, *b}) == 1:
        assert error_consistency(a, b) == 1.0  # scikit-learn: undefined
    else:
        assert error_consistency(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


@given(PAIRS)
def test_agrees_with_counting(pairs):
    a, b = zip(*pairs, strict=True)
    count = len(pairs)
    observed = sum(one == other for one, other in pairs) / count
    p_a, p_b = sum(a) / count, sum(b) / count
    assert observed_consistency(a, b) == observed
    assert expected_consistency(a, b) == pytest.approx(p_a * p_b + (1 - p_a) * (1 - p_b))
    assert accuracy_difference(a, b) == pytest.approx((p_a - p_b) ** 2)


@given(PAIRS)
def test_laws(pairs):
    a, b = zip(*pairs, strict=True)
    assert error_consistency(a, a) == 1.0
    assert accuracy_difference(a, a) == 0.0
    assert -1.0 <= error_consistency(a, b) <= 1.0
    for measure in MEASURES:
        assert measure(a, b) == pytest.approx(measure(b, a))
    errors = [not one for one in a], [not other for other in b]
    assert error_consistency(*errors) == pytest.approx(error_consistency(a, b))
    assert error_consistency(np.array(a), torch.tensor(b)) == error_consistency(a, b)


@given(PAIRS, st.randoms(use_true_random=False))
def test_mappings_are_matched_by_stimulus(pairs, rng):
    a, b = zip(*pairs, strict=True)
    named = [(f"image{number}", value) for number, value in enumerate(b)]
    shuffled = dict(rng.sample(named, len(named)))
    for measure in MEASURES:
        assert measure({f"image{number}": value for number, value in enumerate(a)}, shuffled) == measure(a, b)


def test_identical_observers_are_consistent_also_without_errors():
    assert error_consistency([True] * 5, [True] * 5) == 1.0
    assert error_consistency([False] * 5, [False] * 5) == 1.0
    assert error_consistency([True, False] * 5, [False, True] * 5) == -1.0


def test_independent_observers_have_zero_on_average():
    rng = np.random.default_rng(0)
    values = [error_consistency(rng.random(400) < 0.7, rng.random(400) < 0.4) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(400)


def test_an_observer_who_is_always_right_has_zero_with_others():
    assert error_consistency([True] * 4, [True, False, True, True]) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("correct_a", "correct_b", "kind", "message"),
    [
        ([True], [True, False], ValueError, "correct_a and correct_b must have one entry .*, got 1 of .*, 2 of"),
        ({"cat1": True, "dog7": True}, {"cat1": True}, ValueError, "1 of 2 in correct_a are not in correct_b.*'dog7'"),
        ({"cat1": True}, {"cat1": True, "x": True}, ValueError, "1 of 2 in correct_b are not in correct_a, e.g. 'x'"),
        ({"0001_cat1": True}, {"cat1": True}, ValueError, "check that the ids are free of session and trial numbers"),
        ({"cat1": True}, [True], TypeError, "must both be mappings from stimulus ids, or both .*: got dict and list"),
        ([True], {"cat1": True}, TypeError, "got list and dict"),
        ({}, {}, ValueError, "correct_a is empty"),
        ([], [], ValueError, "correct_a is empty"),
        (["cat"], ["cat"], TypeError, "correct_a must be boolean, got text"),
        ({"cat1": True}, {"cat1": "na"}, TypeError, "correct_b must be boolean, got text"),
        ([True], [None], TypeError, "correct_b must be boolean, got NoneType"),
    ],
)
def test_refuses_what_cannot_be_compared(measure, correct_a, correct_b, kind, message):
    with pytest.raises(kind, match=message):
        measure(correct_a, correct_b)
