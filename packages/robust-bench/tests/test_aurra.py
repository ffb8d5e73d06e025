"""AURRA against a slow definition, closed forms, and laws."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.aurra import aurra

IMAGES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@pytest.mark.parametrize("size", [1, 2, 57, 100, 199, 250, 1001])
@pytest.mark.parametrize("levels", [3, 40, 10**9], ids=["ties", "some_ties", "no_ties"])
def test_agrees_with_the_definition(size, levels):
    rng = random.Random(size)
    confidence = [rng.randrange(levels + 1) / levels for _ in range(size)]
    correct = [rng.random() < value for value in confidence]
    ranked = [right for _, right in sorted(zip(confidence, correct, strict=True), key=lambda image: -image[0])]
    expected = sum(sum(ranked[:kept]) / kept for kept in range(1, size + 1)) / size
    assert aurra(confidence, correct) == pytest.approx(expected, rel=1e-12)


def test_equal_confidences_keep_their_order():
    assert aurra([0.5, 0.5], [True, False]) == 0.75
    assert aurra([0.5, 0.5], [False, True]) == 0.25


@given(IMAGES)
def test_all_right_gives_one_and_all_wrong_zero(images):
    confidence = [value for value, _ in images]
    assert aurra(confidence, [True] * len(images)) == 1.0
    assert aurra(confidence, [False] * len(images)) == 0.0


@given(IMAGES)
def test_only_the_order_of_the_confidences_counts(images):
    confidence, correct = zip(*images, strict=True)
    ranks = sorted(set(confidence))
    assert aurra(confidence, correct) == aurra([ranks.index(value) / len(ranks) for value in confidence], correct)


@given(IMAGES)
def test_no_order_beats_the_right_ones_first(images):
    confidence, correct = zip(*images, strict=True)
    best = aurra([1.0 if right else 0.0 for right in correct], correct)
    worst = aurra([0.0 if right else 1.0 for right in correct], correct)
    assert worst <= aurra(confidence, correct) <= best
