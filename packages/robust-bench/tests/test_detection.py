"""AUPR, AUROC and FPR95 against pair counting, a slow definition and scikit-learn, and the score of ImageNet-O."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.detection import anomaly_score, auroc, average_precision, fpr_at_recall
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

SIZES = [2, 5, 57, 99, 100, 101, 199, 250, 1000]
GROUPS = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60).filter(
    lambda images: 0 < sum(positive for _, positive in images) < len(images)
)


def draw(size, levels):
    rng = random.Random(size)
    positive = [True, False, *(rng.random() < 0.2 for _ in range(size - 2))]
    return [-rng.randrange(levels + 1) / levels + 0.3 * wanted for wanted in positive], positive


def at_threshold(scores, positive, threshold):
    """Recall, precision and false positive rate if everything from this score on is accepted."""
    accepted = [wanted for score, wanted in zip(scores, positive, strict=True) if score >= threshold]
    found, others = sum(accepted), len(positive) - sum(positive)
    return found / sum(positive), found / len(accepted), (len(accepted) - found) / others


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [2, 20, 10**9], ids=["ties", "some_ties", "no_ties"])
def test_agrees_with_the_definitions(size, levels):
    scores, positive = draw(size, levels)
    steps = [at_threshold(scores, positive, threshold) for threshold in sorted(set(scores), reverse=True)]
    area, before = 0.0, 0.0
    for recall, precision, _ in steps:
        area += (recall - before) * precision
        before = recall
    assert average_precision(scores, positive) == pytest.approx(area, rel=1e-12)
    for least in (0.5, 0.8, 0.95, 1.0):
        expected = next(rate for recall, _, rate in steps if recall >= least)
        assert fpr_at_recall(scores, positive, recall=least) == expected
    ours = [score for score, wanted in zip(scores, positive, strict=True) if wanted]
    others = [score for score, wanted in zip(scores, positive, strict=True) if not wanted]
    wins = sum(1.0 if mine > other else 0.5 if mine == other else 0.0 for mine in ours for other in others)
    assert auroc(scores, positive) == pytest.approx(wins / (len(ours) * len(others)), rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [2, 20, 10**9], ids=["ties", "some_ties", "no_ties"])
def test_agrees_with_scikit_learn(size, levels):
    scores, positive = draw(size, levels)
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), rel=1e-12)
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    rates, recalls, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert fpr_at_recall(scores, positive) == pytest.approx(rates[np.argmax(recalls >= 0.95)], rel=1e-12)


def test_a_constant_score_is_chance():
    positive = [True] * 2000 + [False] * 10_000
    assert average_precision([0.0] * 12_000, positive) == pytest.approx(1 / 6)
    assert auroc([0.0] * 12_000, positive) == 0.5
    assert fpr_at_recall([0.0] * 12_000, positive) == 1.0


@pytest.mark.parametrize("count", [20, 40, 60, 100, 140, 2000])
def test_a_recall_of_exactly_95_per_cent_is_enough(count):
    found = count * 95 // 100
    scores = [3.0] * found + [1.0] * (count - found) + [2.0] * 5
    positive = [True] * count + [False] * 5
    assert fpr_at_recall(scores, positive) == 0.0
    assert fpr_at_recall([*scores, 0.0], [*positive, True]) == 1.0  # one more to be found, and it is not among them


def test_the_first_threshold_above_and_not_the_closest():
    scores = [5.0] * 94 + [3.0] * 6 + [4.0, 2.0]
    positive = [True] * 100 + [False] * 2
    assert fpr_at_recall(scores, positive) == 0.5  # a recall of 0.94 is closer to 0.95, and would give 0


@given(GROUPS)
def test_perfect_and_reversed_rankings(images):
    positive = [wanted for _, wanted in images]
    perfect = [float(wanted) for wanted in positive]
    assert (average_precision(perfect, positive), auroc(perfect, positive), fpr_at_recall(perfect, positive)) == (
        1,
        1,
        0,
    )
    reversed_ = [-score for score in perfect]
    assert (auroc(reversed_, positive), fpr_at_recall(reversed_, positive)) == (0, 1)


@given(GROUPS, st.randoms(use_true_random=False))
def test_only_the_ranking_counts_and_not_the_order_of_images(images, rng):
    scores, positive = zip(*images, strict=True)
    shuffled, their_positive = zip(*rng.sample(images, len(images)), strict=True)
    for metric in (average_precision, auroc, fpr_at_recall):
        assert metric(scores, positive) == metric([math.exp(score) for score in shuffled], their_positive)


@given(GROUPS)
def test_turning_scores_or_groups_round_mirrors_the_roc_curve(images):
    scores, positive = zip(*images, strict=True)
    mirrored = 1.0 - auroc(scores, positive)
    assert auroc([-score for score in scores], positive) == pytest.approx(mirrored, abs=1e-12)
    assert auroc(scores, [not wanted for wanted in positive]) == pytest.approx(mirrored, abs=1e-12)


def test_infinite_scores_rank_and_tie_like_others():
    infinite = [math.inf, math.inf, 0.0, -math.inf, -math.inf]
    positive = [True, False, True, True, False]
    for metric in (average_precision, auroc, fpr_at_recall):
        assert metric(infinite, positive) == metric([2.0, 2.0, 0.0, -2.0, -2.0], positive)


@pytest.mark.parametrize("metric", [average_precision, auroc, fpr_at_recall])
@pytest.mark.parametrize("value", [True, False])
def test_one_group_alone_is_no_detection(metric, value):
    message = f"positive must be True for some images and False for others, got {3 * value} of 3: a detector is judged"
    with pytest.raises(ValueError, match=message):
        metric([0.1, 0.2, 0.3], [value] * 3)


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.01, 95, float("nan")])
def test_a_recall_is_a_share(recall):
    with pytest.raises(ValueError, match=rf"recall must be a share in \(0, 1\], e.g. 0.95, got {recall}"):
        fpr_at_recall([0.1, 0.2], [True, False], recall=recall)


def test_the_anomaly_score_is_minus_the_largest_probability():
    logits = torch.randn(7, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [
        -max(math.exp(value) for value in row) / sum(math.exp(value) for value in row) for row in logits.tolist()
    ]
    torch.testing.assert_close(anomaly_score(logits), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(anomaly_score(logits + 1000.0), anomaly_score(logits))
    assert anomaly_score(logits.half()).dtype == anomaly_score(logits.float()).dtype == torch.float32
    assert anomaly_score(torch.zeros(1, 4)).tolist() == [-0.25]


@pytest.mark.parametrize(
    ("logits", "kind", "message"),
    [
        ([[0.0, 1.0]], TypeError, r"logits must be a tensor \(N, K\), got list"),
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "logits must be floats, got torch.int64"),
        (torch.zeros(3), ValueError, r"logits must have the shape \(N, K\), one row per image, got \(3,\)"),
        (torch.zeros(0, 3), ValueError, r"got \(0, 3\)"),
        (torch.tensor([[0.0, math.nan]]), ValueError, "logits must be finite, got NaN or infinite values"),
        (torch.tensor([[0.0, math.inf]]), ValueError, "logits must be finite"),
    ],
)
def test_the_anomaly_score_refuses_what_are_no_logits(logits, kind, message):
    with pytest.raises(kind, match=message):
        anomaly_score(logits)
