"""Corruption errors against closed forms, a plain double loop, laws, and published tables."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from robust_bench.metrics.corruption_error import (
    NOISES,
    corruption_errors,
    mean_corruption_error,
    mean_corruption_error_without_noise,
    mean_error,
    relative_corruption_errors,
    relative_mean_corruption_error,
)

NAMES = list(ALEXNET_ERRORS)
rates = st.floats(0, 1)
tables = st.fixed_dictionaries({name: st.lists(rates, min_size=5, max_size=5) for name in NAMES})


def measured(seed=0):
    """Errors of some model: 15 x 5."""
    draw = random.Random(seed)
    return {name: [draw.random() for _ in range(5)] for name in NAMES}


def oracle(errors, clean=0.0, base_clean=0.0, names=NAMES):
    total = 0.0
    for name in names:
        above = below = 0.0
        for severity in range(5):
            above += errors[name][severity] - clean
            below += ALEXNET_ERRORS[name][severity] - base_clean
        total += above / below
    return total / len(names)


def test_alexnet_itself_scores_one_on_everything():
    assert mean_corruption_error(ALEXNET_ERRORS) == 1.0
    assert corruption_errors(ALEXNET_ERRORS) == dict.fromkeys(NAMES, 1.0)
    assert mean_corruption_error_without_noise(ALEXNET_ERRORS) == 1.0
    assert relative_mean_corruption_error(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR) == 1.0
    assert relative_corruption_errors(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR) == dict.fromkeys(NAMES, 1.0)


def test_a_model_that_is_never_wrong_scores_zero_and_one_that_loses_nothing_is_relatively_zero():
    assert mean_corruption_error(dict.fromkeys(NAMES, 0.0)) == 0.0
    assert relative_mean_corruption_error(dict.fromkeys(NAMES, 0.3), 0.3) == 0.0
    assert relative_mean_corruption_error(dict.fromkeys(NAMES, 0.2), 0.3) < 0


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_plain_loop_over_corruptions_and_severities(seed):
    errors = measured(seed)
    assert mean_corruption_error(errors) == pytest.approx(oracle(errors), rel=1e-12)
    assert relative_mean_corruption_error(errors, 0.25) == pytest.approx(oracle(errors, 0.25, 0.43478), rel=1e-12)
    twelve = [name for name in NAMES if not name.endswith("noise")]
    assert len(twelve) == 12
    assert mean_corruption_error_without_noise(errors) == pytest.approx(oracle(errors, names=twelve), rel=1e-12)
    cells = [error for row in errors.values() for error in row]
    assert mean_error(errors) == pytest.approx(sum(cells) / 75, rel=1e-12)


@given(tables, rates, st.randoms(use_true_random=False))
def test_neither_the_order_nor_averaging_over_severities_first_changes_a_score(errors, clean, shuffle):
    names = NAMES.copy()
    shuffle.shuffle(names)
    other = {name: math.fsum(errors[name]) / 5 for name in names}
    assert mean_corruption_error(other) == pytest.approx(mean_corruption_error(errors), abs=1e-12)
    assert mean_error(other) == pytest.approx(mean_error(errors), abs=1e-12)
    assert relative_mean_corruption_error(other, clean) == pytest.approx(
        relative_mean_corruption_error(errors, clean), abs=1e-10
    )
    assert list(corruption_errors(other)) == list(relative_corruption_errors(other, clean)) == NAMES


@given(tables, st.floats(0, 1))
def test_scores_scale_with_the_errors_and_their_means_are_those_of_the_parts(errors, factor):
    smaller = {name: [factor * error for error in row] for name, row in errors.items()}
    assert mean_corruption_error(smaller) == pytest.approx(factor * mean_corruption_error(errors), abs=1e-12)
    assert mean_error(smaller) == pytest.approx(factor * mean_error(errors), abs=1e-12)
    parts = corruption_errors(errors)
    assert mean_corruption_error(errors) == pytest.approx(sum(parts.values()) / 15, abs=1e-12)
    noise, rest = sum(parts[name] for name in NOISES), mean_corruption_error_without_noise(errors)
    assert noise + 12 * rest == pytest.approx(sum(parts.values()), abs=1e-12)


@given(tables, rates)
def test_against_its_own_errors_every_model_scores_one(errors, clean):
    errors = {name: [0.01 + 0.99 * error for error in row] for name, row in errors.items()}
    assert mean_corruption_error(errors, errors) == 1.0
    worse = {name: clean / 2 + (1 - clean / 2) * (0.01 + 0.99 * sum(row) / 5) for name, row in errors.items()}
    assert relative_mean_corruption_error(worse, clean / 2, worse, clean / 2) == 1.0


def test_the_noises_may_be_there_or_not_when_they_do_not_count():
    twelve = {name: errors for name, errors in measured().items() if name not in NOISES}
    with_noise = twelve | {"gaussian_noise": 0.5}
    assert mean_corruption_error_without_noise(twelve) == mean_corruption_error_without_noise(with_noise)
    assert mean_corruption_error_without_noise(measured()) == mean_corruption_error_without_noise(twelve)


def test_tensors_arrays_and_tuples_are_lists_of_severities():
    errors = measured()
    expected = mean_corruption_error(errors)
    for kind in (tuple, np.array, lambda row: torch.tensor(row, dtype=torch.float64)):
        assert mean_corruption_error({name: kind(row) for name, row in errors.items()}) == expected
    means = {name: np.float64(np.mean(row)) for name, row in errors.items()}
    assert mean_corruption_error(means) == pytest.approx(expected, rel=1e-12)


def test_other_corruptions_are_averaged_when_they_are_named():
    four = {"fog": [0.1, 0.2], "snow": [0.3, 0.4], "frost": 0.5, "spatter": 0.0}
    assert mean_error(four, corruptions=list(four)) == pytest.approx((0.15 + 0.35 + 0.5) / 4)
    assert mean_corruption_error(four, dict.fromkeys(four, 0.5)) == pytest.approx(2 * mean_error(four, set(four)))


SCORES = {
    "mCE": mean_corruption_error,
    "CE": corruption_errors,
    "mCE without noise": mean_corruption_error_without_noise,
    "relative mCE": lambda errors: relative_mean_corruption_error(errors, 0.2),
    "relative CE": lambda errors: relative_corruption_errors(errors, 0.2),
    "mean error": mean_error,
}
each_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


@each_score
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"fog": None}, ValueError, r"errors lacks fog: the score is a mean over exactly the 1[25] names of .*, so"),
        ({"fog": None, "snow": None}, ValueError, r"errors lacks snow, fog: .* measure what is missing"),
        ({"spatter": 0.5, "saturate": 0.5}, ValueError, r"errors has spatter, saturate, unknown to .*, so leave out"),
        ({"fog": None, "fogg": 0.5}, ValueError, r"errors lacks fog and has fogg, unknown to .* so measure"),
        ({"fog": 67.5}, ValueError, r"\['fog'\] must be a fraction in \[0, 1\], got 67.5: divide per cent by 100$"),
        ({"fog": [0.5, 0.5, 0.5, 0.5, 5.0]}, ValueError, r"errors\['fog'\]\[4\] must be .*, got 5: divide per cent"),
        ({"fog": -0.1}, ValueError, r"errors\['fog'\] must be a fraction in \[0, 1\], got -0.1$"),
        ({"fog": math.inf}, ValueError, r"errors\['fog'\] must be a fraction in \[0, 1\], got inf$"),
        ({"fog": math.nan}, ValueError, r"errors\['fog'\] is NaN"),
        ({"fog": [0.1, 0.2, math.nan, 0.3, 0.4]}, ValueError, r"errors\['fog'\]\[2\] is NaN"),
        ({"fog": [0.1, 0.2, 0.3]}, ValueError, r"errors\['fog'\] has 3 values, but .* has 5: give one rate per s"),
        ({"fog": []}, ValueError, r"errors\['fog'\] is empty"),
        ({"fog": "0.5"}, TypeError, r"errors\['fog'\] must be a number, got str: '0.5'"),
        ({"fog": [[0.1] * 5]}, TypeError, r"errors\['fog'\]\[0\] must be a number, got list"),
    ],
)  # fmt: skip
def test_says_which_error_rate_is_wrong(score, change, error, words):
    errors = {name: rate for name, rate in (measured() | change).items() if rate is not None}
    with pytest.raises(error, match=words):
        score(errors)


@each_score
def test_refuses_what_is_no_mapping(score):
    with pytest.raises(TypeError, match=r"errors must map names to rates, e.g. .*'fog'.*, got list"):
        score([0.5] * 15)


def test_severities_must_be_those_of_the_baseline():
    with pytest.raises(ValueError, match=r"errors\['gaussian_noise'\] has 3 values, but baseline.* has 5"):
        mean_corruption_error({name: [0.1, 0.2, 0.3] for name in NAMES})
    with pytest.raises(ValueError, match=r"\['snow'\] has 3 values, but errors\['fog'\] has 2"):
        mean_error({"fog": [0.1, 0.2], "frost": [0.1, 0.2], "snow": [0.1] * 3}, ("fog", "frost", "snow"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_corruption_error({"fog": 0.5}, {"fog": 0}), r"baseline\['fog'\] is 0, and nothing can be"),
        (lambda: mean_corruption_error({}, {}), "the baseline is empty"),
        (lambda: mean_corruption_error({"fog": 0.5}, {"fog": 81.9}), r"baseline\['fog'\] must .* divide per cent"),
        (lambda: mean_error({}, ()), "corruptions is empty"),
        (lambda: relative_mean_corruption_error(measured(), 23.9), "clean_error must be .*got 23.9: divide per cent"),
        (lambda: relative_mean_corruption_error(measured(), math.nan), "clean_error is NaN"),
        (
            lambda: relative_mean_corruption_error({"fog": 0.5}, 0.1, {"fog": 0.4}, 0.4),
            r"baseline\['fog'\] is 0.4, no more than baseline_clean_error 0.4: .* a baseline that the corruption makes",
        ),
        (
            lambda: relative_mean_corruption_error({"fog": 0.5}, 0.1, {"fog": 0.4}, 40),
            "baseline_clean_error must be a fraction in .*, got 40: divide per cent",
        ),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_a_baseline_or_a_clean_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_baseline_must_be_a_mapping():
    with pytest.raises(TypeError, match="baseline must map names to rates"):
        mean_corruption_error({"fog": 0.5}, 0.5)


@pytest.mark.shared_data
@pytest.mark.parametrize("model", ["resnext101_32x8d", "resnext101_32x8d_wsl"])
def test_gives_the_published_scores_from_the_published_raw_errors(shared, model):
    found = json.loads((shared / "metrics" / "resnext_wsl_tables.json").read_text())["models"][model]
    errors = {name: error / 100 for name, error in found["imagenet_c_err_pct"].items()}
    clean = found["expected"]["rel_mCE_with_clean_err"] / 100
    assert clean == pytest.approx(1 - found["published"]["clean_top1"] / 100)
    mce, relative = 100 * mean_corruption_error(errors), 100 * relative_mean_corruption_error(errors, clean)
    assert mce == pytest.approx(found["published"]["mCE"], abs=0.06)
    assert mce == pytest.approx(found["expected"]["mCE"], abs=1e-3)
    assert relative == pytest.approx(found["published"]["rel_mCE"], abs=0.1)
    assert relative == pytest.approx(found["expected"]["rel_mCE"], abs=1e-3)
