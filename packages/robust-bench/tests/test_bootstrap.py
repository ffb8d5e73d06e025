"""Bootstrap intervals against a resample written out by hand, the normal limit, and their own laws."""

import dataclasses
import math
import random
import statistics
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES
from robust_bench.metrics.bootstrap import BootstrapInterval, bootstrap, bootstrap_means
from robust_bench.metrics.corruption_error import mean_corruption_error, relative_mean_corruption_error
from robust_bench.metrics.flips import mean_flip_rate


def mean(values):
    return values.double().mean().item()


def wrong_images(count=400, seed=0):
    """Errors of a model as wrong as AlexNet, bool (count, 5) per corruption; a hard image is hard everywhere."""
    generator = torch.Generator().manual_seed(seed)
    hard = torch.rand(count, 1, generator=generator)
    return {name: hard < torch.tensor(errors) for name, errors in ALEXNET_ERRORS.items()}


def quantile(values, share):
    """The linearly interpolated quantile, written out."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def resampled(count, resamples, seed, strata=None):
    """The positions that `bootstrap` draws, seen through its statistic."""
    seen = []

    def watch(positions):
        seen.append(positions.tolist())
        return 0.0

    bootstrap((torch.arange(count),), watch, strata=strata, resamples=resamples, seed=seed)
    assert seen.pop(0) == list(range(count))  # the data themselves
    return seen


def test_the_interval_is_that_of_the_scores_of_the_resamples():
    wrong = wrong_images(50)
    scores = []
    for positions in resampled(50, 200, seed=3):
        errors = {
            name: [sum(bool(rows[place, severity]) for place in positions) / 50 for severity in range(5)]
            for name, rows in wrong.items()
        }
        ratios = [sum(errors[name]) / sum(ALEXNET_ERRORS[name]) for name in errors]
        scores.append(sum(ratios) / 15)
    found = bootstrap_means(wrong, mean_corruption_error, resamples=200, seed=3, confidence=0.9)
    assert found.low == pytest.approx(quantile(scores, 0.05), rel=1e-12)
    assert found.high == pytest.approx(quantile(scores, 0.95), rel=1e-12)
    assert found.value == mean_corruption_error({name: rows.double().mean(0).tolist() for name, rows in wrong.items()})
    assert (found.resamples, found.seed, found.confidence) == (200, 3, 0.9)


@given(st.integers(2, 60), st.integers(0, 2**40))
def test_both_ways_draw_the_same_resamples(count, seed):
    values = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    by_images = bootstrap((values,), mean, resamples=25, seed=seed)
    by_counts = bootstrap_means({"x": values}, lambda means: means["x"], resamples=25, seed=seed)
    assert dataclasses.astuple(by_images) == pytest.approx(dataclasses.astuple(by_counts), abs=1e-12)


def test_resamples_draw_every_image_alike_with_replacement():
    drawn = resampled(40, 2000, seed=0)
    assert {len(positions) for positions in drawn} == {40}
    counts = np.bincount(np.concatenate(drawn), minlength=40)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 75  # 39 degrees of freedom: 1 in 2000
    distinct = statistics.fmean(len(set(positions)) for positions in drawn) / 40
    assert distinct == pytest.approx(1 - (1 - 1 / 40) ** 40, abs=0.005)


def test_seeds_fix_everything_and_nothing_else_is_touched():
    wrong = wrong_images()
    before = torch.get_rng_state(), random.getstate(), {name: rows.clone() for name, rows in wrong.items()}
    first, again, other = (bootstrap_means(wrong, mean_corruption_error, resamples=50, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert all(torch.equal(rows, before[2][name]) for name, rows in wrong.items())


def test_neither_the_size_of_a_chunk_nor_other_scores_change_an_interval(monkeypatch):
    wrong = wrong_images()
    whole = bootstrap_means(wrong, mean_corruption_error, resamples=60)
    monkeypatch.setattr(sys.modules["robust_bench.metrics.bootstrap"], "_CHUNK", 1)
    assert bootstrap_means(wrong, mean_corruption_error, resamples=60) == whole
    one = bootstrap_means({"fog": wrong["fog"]}, lambda errors: sum(errors["fog"]) / 5, resamples=60)
    assert bootstrap_means(wrong, lambda errors: sum(errors["fog"]) / 5, resamples=60) == one


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_share_has_the_width_of_the_normal_limit(confidence):
    right = torch.arange(4000) % 10 < 3
    found = bootstrap_means({"x": right}, lambda means: means["x"], resamples=4000, confidence=confidence)
    half = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(0.3 * 0.7 / 4000)
    assert found.value == 0.3
    assert (0.3 - found.low, found.high - 0.3) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_intervals_of_means_cover_the_truth_about_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(200):
        values = torch.rand(80, generator=generator, dtype=torch.float64)
        found = bootstrap_means({"x": values}, lambda means: means["x"], resamples=200, seed=trial, confidence=0.9)
        covered += found.low <= 0.5 <= found.high
    assert 165 <= covered <= 193  # 180 expected, standard deviation 4.2


def test_images_stay_together_so_that_a_difference_of_like_models_is_narrow():
    hard = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    wrong, better = hard < 0.5, hard < 0.48
    alone = bootstrap((wrong,), mean, resamples=300)
    apart = bootstrap((wrong, better), lambda one, other: mean(one) - mean(other), resamples=300)
    assert apart.high - apart.low < (alone.high - alone.low) / 3
    assert apart.low > 0
    same = bootstrap_means({"a": wrong, "b": wrong}, lambda means: means["a"] - means["b"], resamples=300)
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)


def test_relative_and_flip_scores_take_the_means_as_they_come():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(400, generator=generator) < ALEXNET_CLEAN_ERROR

    def relative(means):
        clean_error = means.pop("clean")
        return relative_mean_corruption_error(means, clean_error)

    found = bootstrap_means({"clean": clean, **wrong_images()}, relative, resamples=100)
    assert found.low < found.value < found.high
    flips = {
        name: torch.rand(300, generator=generator) * 2 * value for name, value in ALEXNET_FLIP_PROBABILITIES.items()
    }
    found = bootstrap_means(flips, mean_flip_rate, resamples=100)
    assert found.low < 1.0 < found.high
    assert found.value == pytest.approx(1.0, abs=0.1)


def test_strata_keep_their_sizes():
    strata = [7] * 3 + [-1] * 10 + [7] * 2
    sevens = {0, 1, 2, 13, 14}
    drawn = resampled(15, 300, seed=1, strata=strata)
    assert {sum(place in sevens for place in positions) for positions in drawn} == {5}
    counts = np.bincount(np.concatenate(drawn), minlength=15)
    assert abs(counts - 300).max() < 75  # standard deviation at most 17
    free = resampled(15, 300, seed=1)
    assert len({sum(place in sevens for place in positions) for positions in free}) > 5
    assert resampled(15, 300, seed=1, strata=[0] * 15) == free


def test_labels_of_any_type_are_resampled_by_their_positions():
    names = np.array(["cat", "dog", "dog", "cat", "cat"])
    found = bootstrap((np.arange(5),), lambda positions: (names[positions] == "cat").mean(), resamples=50)
    assert found.value == 0.6
    assert 0 <= found.low < 0.6 < found.high <= 1


def test_the_same_score_on_every_resample_is_an_interval_of_no_width():
    found = bootstrap((torch.ones(10),), mean)
    assert found == BootstrapInterval(value=1.0, low=1.0, high=1.0, confidence=0.95, resamples=1000, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 2.0


@pytest.mark.parametrize(
    ("arrays", "settings", "words"),
    [
        ((), {}, "nothing to resample: give at least one array"),
        ((torch.zeros(3), torch.zeros(4)), {}, r"different numbers: arrays\[0\] 3, arrays\[1\] 4"),
        ((torch.zeros(1),), {}, "at least two images to draw from, got 1"),
        ((torch.tensor(1.0),), {}, "one entry per image as its first axis, got a single number"),
        ((torch.zeros(3),), {"resamples": 0}, "resamples must be at least 1, e.g. 1000, got 0"),
        ((torch.zeros(3),), {"confidence": 95}, "confidence must lie strictly between 0 and 1, e.g. 0.95, got 95"),
        ((torch.zeros(3),), {"strata": [0, 1]}, r"strata must have the shape \(3,\), one per image, got \(2,\)"),
    ],
)
def test_says_what_is_wrong_with_arrays_and_settings(arrays, settings, words):
    with pytest.raises(ValueError, match=words):
        bootstrap(arrays, lambda *_: 0.0, **settings)


@pytest.mark.parametrize(
    ("values", "settings", "error", "words"),
    [
        ([torch.zeros(3)], {}, TypeError, r"values must map names to tensors \(N,\) or \(N, S\), got list"),
        ({}, {}, ValueError, "nothing to resample"),
        ({"fog": torch.zeros(3), "snow": torch.zeros(4, 5)}, {}, ValueError, "different numbers: fog 3, snow 4"),
        ({"fog": torch.zeros(3, 2, 2)}, {}, ValueError, r"values\['fog'\] must have the shape \(N,\) or \(N, severiti"),
        ({"fog": torch.zeros(3, 0)}, {}, ValueError, r"values\['fog'\] must have the shape .*, got \(3, 0\)"),
        ({"fog": torch.tensor([0.0, math.nan])}, {}, ValueError, "values must be finite numbers: an image without a"),
        ({"fog": torch.zeros(1)}, {}, ValueError, "at least two images"),
        ({"fog": torch.zeros(3)}, {"resamples": -1}, ValueError, "resamples must be at least 1"),
        ({"fog": torch.zeros(3)}, {"confidence": 1.0}, ValueError, "confidence must lie strictly between 0 and 1"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_values_and_settings(values, settings, error, words):
    with pytest.raises(error, match=words):
        bootstrap_means(values, lambda _: 0.0, **settings)


def test_a_score_that_is_not_finite_is_an_error_that_says_where():
    values = torch.tensor([0.0, 0.0, 1.0])

    def odds(means):
        return means["x"] / (1 - means["x"]) if means["x"] < 1 else math.inf

    with pytest.raises(ValueError, match=r"the statistic is inf on resample \d+, .*it needs more images"):
        bootstrap_means({"x": values}, odds)
    with pytest.raises(ValueError, match=r"the statistic is nan on resample \d+"):
        bootstrap((values,), lambda drawn: math.nan if drawn.sum() != 1 else 1.0)
    with pytest.raises(ValueError, match="the statistic is nan on the data"):
        bootstrap((values,), lambda _: math.nan)


def test_what_the_score_refuses_reaches_the_caller():
    with pytest.raises(ValueError, match="errors lacks gaussian_noise"):
        bootstrap_means({"fog": torch.zeros(9, 5)}, mean_corruption_error)
