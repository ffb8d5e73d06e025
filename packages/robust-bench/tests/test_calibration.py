"""Calibration errors against a slow definition, the published code's convention, and laws."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.calibration import (
    max_calibration_error,
    mean_absolute_calibration_error,
    rms_calibration_error,
)

SIZES = [1, 2, 57, 99, 100, 101, 199, 200, 201, 250, 999, 1000, 7500]
IMAGES = st.lists(st.tuples(st.integers(0, 10).map(lambda tenths: tenths / 10), st.booleans()), min_size=1, max_size=90)


def draw(size, levels, seed=0):
    """Confidences on few levels, so that most are tied, and answers that are right about as often as they say."""
    rng = random.Random(seed + size)
    confidence = [rng.randrange(levels + 1) / levels for _ in range(size)]
    return confidence, [rng.random() < value for value in confidence]


def bins(confidence, correct, bin_size):
    """Lists of (confidence, correct), from the words of the definition."""
    images = sorted(zip(confidence, correct, strict=True), key=lambda image: image[0])
    found = []
    while len(images) >= 2 * bin_size:
        found.append(images[:bin_size])
        images = images[bin_size:]
    return [*found, images]


def gap(images):
    return abs(sum(value for value, _ in images) / len(images) - sum(right for _, right in images) / len(images))


def published(confidence, correct, power, beta=100):
    """The convention behind published numbers, with its edges: whole bins, the last of them stretched and left out."""
    order = np.argsort(confidence, kind="stable")
    values, right = np.asarray(confidence)[order], np.asarray(correct)[order]
    edges = [[index * beta, (index + 1) * beta] for index in range(len(values) // beta)]
    edges[-1][1] = len(values)
    total = 0.0
    for start, end in edges[:-1]:
        difference = abs(np.nanmean(values[start:end]) - np.nanmean(right[start:end]))
        if power == math.inf:
            total = max(total, difference)
        else:
            total += (end - start) / len(values) * difference**power
    return math.sqrt(total) if power == 2 else total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [3, 40, 10**9], ids=["ties", "some_ties", "no_ties"])
def test_agrees_with_the_definition(size, levels):
    confidence, correct = draw(size, levels)
    parts = bins(confidence, correct, 100)
    assert len(parts) == max(1, size // 100)
    squares = sum(len(part) / size * gap(part) ** 2 for part in parts)
    assert rms_calibration_error(confidence, correct) == pytest.approx(math.sqrt(squares), rel=1e-12)
    mean = sum(len(part) / size * gap(part) for part in parts)
    assert mean_absolute_calibration_error(confidence, correct) == pytest.approx(mean, rel=1e-12)
    assert max_calibration_error(confidence, correct) == pytest.approx(max(gap(part) for part in parts), rel=1e-12)


@pytest.mark.parametrize("size", [size for size in SIZES if size >= 100])
@pytest.mark.parametrize("levels", [3, 40, 10**9], ids=["ties", "some_ties", "no_ties"])
def test_drop_last_is_the_published_convention(size, levels):
    confidence, correct = draw(size, levels)
    assert rms_calibration_error(confidence, correct, drop_last=True) == pytest.approx(
        published(confidence, correct, 2), rel=1e-12
    )
    assert mean_absolute_calibration_error(confidence, correct, drop_last=True) == pytest.approx(
        published(confidence, correct, 1), rel=1e-12
    )
    assert max_calibration_error(confidence, correct, drop_last=True) == pytest.approx(
        published(confidence, correct, math.inf), rel=1e-12
    )


@pytest.mark.parametrize("size", [1, 99, 100, 199])
@pytest.mark.parametrize("metric", [rms_calibration_error, mean_absolute_calibration_error, max_calibration_error])
def test_drop_last_gives_zero_below_two_bins(metric, size):
    confidence, wrong = [0.9] * size, [False] * size
    assert metric(confidence, wrong, drop_last=True) == 0.0
    assert metric(confidence, wrong) == pytest.approx(0.9)


def test_drop_last_leaves_out_the_most_confident_bin_but_divides_by_all_images():
    confidence, correct = [0.25] * 100 + [0.75] * 100, [True] * 100 + [False] * 100
    assert rms_calibration_error(confidence, correct) == 0.75
    assert rms_calibration_error(confidence, correct, drop_last=True) == pytest.approx(0.75 * math.sqrt(0.5))
    assert mean_absolute_calibration_error(confidence, correct, drop_last=True) == 0.375


def test_7500_images_have_75_bins_of_which_the_published_code_counts_74():
    confidence = [0.5] * 7500
    wrong = [False] * 7500
    assert rms_calibration_error(confidence, wrong, drop_last=True) == pytest.approx(0.5 * math.sqrt(74 / 75))


def test_the_remainder_joins_the_last_bin():
    confidence, correct = [0.0] * 3 + [1.0] * 2, [False, False, False, False, True]
    assert max_calibration_error(confidence, correct, bin_size=2) == pytest.approx(abs(2 / 3 - 1 / 3))
    assert max_calibration_error(confidence, correct, bin_size=3) == pytest.approx(abs(2 / 5 - 1 / 5))


def test_equal_confidences_keep_their_order():
    confidence = [0.5] * 4
    assert rms_calibration_error(confidence, [True, False, True, False], bin_size=2) == 0.0
    assert rms_calibration_error(confidence, [True, True, False, False], bin_size=2) == 0.5


@given(IMAGES, st.integers(1, 100), st.booleans())
def test_mean_is_at_most_rms_is_at_most_max(images, bin_size, drop_last):
    confidence, correct = zip(*images, strict=True)
    arguments = confidence, correct, bin_size, drop_last
    mean, rms, largest = (
        metric(*arguments) for metric in (mean_absolute_calibration_error, rms_calibration_error, max_calibration_error)
    )
    assert 0.0 <= mean <= rms + 1e-12 <= largest + 2e-12 <= 1.0 + 2e-12


@given(IMAGES, st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_order_of_images_of_different_confidence_is_without_effect(images, rng, bin_size):
    images = list({confidence: (confidence, correct) for confidence, correct in images}.values())
    shuffled = rng.sample(images, len(images))
    first, second = (zip(*order, strict=True) for order in (images, shuffled))
    assert rms_calibration_error(*first, bin_size=bin_size) == rms_calibration_error(*second, bin_size=bin_size)


@given(IMAGES)
def test_one_bin_is_the_difference_of_the_means(images):
    confidence, correct = zip(*images, strict=True)
    assert rms_calibration_error(confidence, correct) == pytest.approx(abs(np.mean(confidence) - np.mean(correct)))


@pytest.mark.parametrize("metric", [rms_calibration_error, mean_absolute_calibration_error, max_calibration_error])
@pytest.mark.parametrize(
    ("bin_size", "kind", "message"),
    [
        (0, ValueError, "bin_size must be at least 1 image, got 0"),
        (-3, ValueError, "bin_size must be at least 1 image, got -3"),
        (2.0, TypeError, "bin_size must be an integer number of images, got float"),
        (True, TypeError, "bin_size must be an integer number of images, got bool"),
    ],
)
def test_refuses_an_impossible_bin_size(metric, bin_size, kind, message):
    with pytest.raises(kind, match=message):
        metric([0.5], [True], bin_size=bin_size)
