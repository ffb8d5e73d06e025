"""Flip probabilities against loops written from the definition, laws, and published tables."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.alexnet import ALEXNET_FLIP_PROBABILITIES
from robust_bench.metrics.flips import (
    flip_probability,
    flip_rates,
    frame_pairs,
    mean_flip_rate,
    sequence_flips,
)

NAMES = list(ALEXNET_FLIP_PROBABILITIES)


def oracle(predictions, noise, difficulty):
    """FP sequence by sequence: the chains of every start, neighbours compared, noise against frame 0."""
    per_sequence = []
    for sequence in predictions:
        flips = []
        if noise:
            flips = [frame != sequence[0] for frame in sequence[1:]]
        else:
            for start in range(difficulty):
                chain = [sequence[place] for place in range(start, len(sequence), difficulty)]
                flips += [chain[place] != chain[place + 1] for place in range(len(chain) - 1)]
        per_sequence.append(sum(flips) / len(flips))
    return per_sequence


@st.composite
def sequences(draw):
    frames = draw(st.integers(4, 12))
    row = st.lists(st.integers(0, 3), min_size=frames, max_size=frames)
    return draw(st.lists(row, min_size=1, max_size=5))


@given(sequences(), st.booleans(), st.integers(1, 3))
def test_agrees_with_loops_over_chains(predictions, noise, difficulty):
    expected = oracle(predictions, noise, difficulty)
    assert sequence_flips(predictions, noise, difficulty).tolist() == pytest.approx(expected, abs=1e-15)
    mean = sum(expected) / len(expected)
    assert flip_probability(predictions, noise, difficulty) == pytest.approx(mean, abs=1e-15)


@given(sequences(), st.booleans(), st.integers(1, 3))
def test_class_numbers_and_the_direction_of_time_do_not_matter(predictions, noise, difficulty):
    classes = torch.tensor(predictions)
    found = flip_probability(classes, noise, difficulty)
    assert flip_probability(classes * 7 + 3, noise, difficulty) == found
    assert 0 <= found <= 1
    if not noise:
        assert flip_probability(classes.flip(1), noise, difficulty) == pytest.approx(found)


def test_the_pairs_of_five_frames():
    frames = torch.arange(5)[None]

    def pairs(noise, difficulty):
        old, new = frame_pairs(frames, noise, difficulty)
        return list(zip(old[0].tolist(), new[0].tolist(), strict=True))

    assert pairs(False, 1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert pairs(False, 2) == [(0, 2), (1, 3), (2, 4)]
    assert pairs(False, 4) == [(0, 4)]
    assert pairs(True, 1) == pairs(True, 3) == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_pairs_are_views_of_any_shape():
    frames = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    old, new = frame_pairs(frames, noise=True)
    assert old.shape == new.shape == (2, 5, 3, 4)
    assert old.untyped_storage().data_ptr() == new.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()


def test_closed_forms():
    steady, alternating = [[4] * 31], [[0, 1] * 15 + [0]]
    for noise in (False, True):
        assert flip_probability(steady, noise) == 0.0
    assert flip_probability(alternating, noise=False) == 1.0
    assert flip_probability(alternating, noise=False, difficulty=2) == 0.0
    assert flip_probability(alternating, noise=True) == 0.5
    assert flip_probability([*steady, *alternating], noise=False) == 0.5


def test_batches_give_the_sequences_of_the_whole():
    predictions = torch.randint(0, 3, (17, 31), generator=torch.Generator().manual_seed(0))
    whole = sequence_flips(predictions, noise=False)
    parts = torch.cat([sequence_flips(batch, noise=False) for batch in predictions.split(5)])
    assert whole.dtype == torch.float64
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_arrays_and_lists_are_taken_like_tensors():
    predictions = [[1, 2, 2], [3, 3, 3]]
    for kind in (np.array, torch.tensor, lambda rows: torch.tensor(rows, dtype=torch.int16)):
        assert flip_probability(kind(predictions), noise=False) == 0.25


@pytest.mark.parametrize(
    ("predictions", "settings", "error", "words"),
    [
        (torch.zeros(2, 3), {}, TypeError, r"predictions must be integer class indices, got torch.float32: use logits"),
        (torch.zeros(2, 3, dtype=torch.bool), {}, TypeError, "got torch.bool"),
        (torch.zeros(3, dtype=torch.int64), {}, ValueError, r"shape \(N, T\), one class per frame, got \(3,\)"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), {}, ValueError, r"got \(2, 3, 4\): logits .* become classes with"),
        ([[1, 2], [1, 2, 3]], {}, ValueError, r"predictions must be \(N, T\), sequences of equally many frames"),
        ([[1]], {}, ValueError, r"at least 2 frames to compare, got the shape \(1, 1\)"),
        ([[1, 2, 3]], {"difficulty": 3}, ValueError, r"at least 4 frames to compare, got the shape \(1, 3\)"),
        ([[1, 2, 3]], {"difficulty": 0}, ValueError, "difficulty must be at least 1, got 0; papers use 1"),
        (torch.zeros(0, 3, dtype=torch.int64), {}, ValueError, "no sequence to average over"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_predictions(predictions, settings, error, words):
    with pytest.raises(error, match=words):
        flip_probability(predictions, noise=False, **settings)


def test_alexnet_itself_flips_at_rate_one():
    assert mean_flip_rate(ALEXNET_FLIP_PROBABILITIES) == 1.0
    assert flip_rates(ALEXNET_FLIP_PROBABILITIES) == dict.fromkeys(NAMES, 1.0)
    assert mean_flip_rate(dict.fromkeys(NAMES, 0.0)) == 0.0


@given(st.lists(st.floats(0, 1), min_size=10, max_size=10), st.randoms(use_true_random=False))
def test_the_rate_is_the_mean_of_ratios_in_any_order(probabilities, shuffle):
    items = list(zip(NAMES, probabilities, strict=True))
    expected = sum(value / ALEXNET_FLIP_PROBABILITIES[name] for name, value in items) / 10
    shuffle.shuffle(items)
    assert mean_flip_rate(dict(items)) == pytest.approx(expected, rel=1e-12)
    assert list(flip_rates(dict(items))) == NAMES


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tilt": None}, ValueError, "flip_probabilities lacks tilt: the score is a mean over exactly the 10 names"),
        ({"shear": 0.1}, ValueError, "flip_probabilities has shear, unknown to the baseline"),
        ({"tilt": 7.05}, ValueError, r"flip_probabilities\['tilt'\] must be a fraction .*, got 7.05: divide per cent"),
        ({"tilt": math.nan}, ValueError, r"flip_probabilities\['tilt'\] is NaN"),
        ({"tilt": "low"}, TypeError, r"flip_probabilities\['tilt'\] must be a number, got str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("score", [mean_flip_rate, flip_rates])
def test_says_which_flip_probability_is_wrong(score, change, error, words):
    given_values = dict.fromkeys(NAMES, 0.1) | change
    with pytest.raises(error, match=words):
        score({name: value for name, value in given_values.items() if value is not None})


def test_refuses_a_baseline_that_never_flips_and_what_is_no_mapping():
    with pytest.raises(ValueError, match=r"baseline\['tilt'\] is 0, and nothing can be divided by it"):
        flip_rates({"tilt": 0.1}, {"tilt": 0.0})
    with pytest.raises(TypeError, match="flip_probabilities must map names to rates"):
        mean_flip_rate([0.1] * 10)


@pytest.mark.shared_data
@pytest.mark.parametrize("model", ["resnext101_32x8d", "resnext101_32x8d_wsl"])
def test_gives_the_published_flip_rates_from_the_published_probabilities(shared, model):
    found = json.loads((shared / "metrics" / "resnext_wsl_tables.json").read_text())["models"][model]
    rate = 100 * mean_flip_rate(found["imagenet_p_fp"])
    assert rate == pytest.approx(found["published"]["mFR"], abs=0.05)
    assert rate == pytest.approx(found["expected"]["mFR"], abs=1e-3)
