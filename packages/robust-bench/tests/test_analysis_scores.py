"""Scores of analyses from answers that are known."""

import statistics

import numpy as np
import pytest
from robust_bench import Result
from robust_bench.answers import Answers
from robust_bench.benchmarks.analysis_scores import (
    DETAILS,
    QUANTILES,
    attention_scores,
    convergence_scores,
    effectiveness_scores,
    occlusion_scores,
    semantic_scores,
    steps_scores,
)
from robust_bench.conditions.attention_similarity import LAYERS, SIMILARITY
from robust_bench.conditions.occluded import mask_column
from robust_bench.conditions.repeated import loss_column
from robust_bench.conditions.semantic import judged_column


def answers(count, *, right=None, more=None, labels=None, **settings):
    return Answers(
        benchmark="mine",
        settings=settings,
        condition="label",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64) if labels is None else labels,
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.ones(count, dtype=np.float32),
        right=np.ones(count, dtype=np.bool_) if right is None else right,
        more=more or {},
    )


def with_losses(steps, means, spread=0.5):
    """Two images whose losses after every start have this mean."""
    more = {loss_column(start): np.array([mean - spread, mean + spread]) for start, mean in enumerate(means)}
    return answers(2, more=more, kind="repeated attack", attack="PGD", steps=steps, starts=len(means))


def curve(*right):
    columns = [np.arange(400) < count for count in right]
    return [answers(400, right=column, steps=10 * number) for number, column in enumerate(columns, start=1)]


@pytest.mark.parametrize(
    ("right", "falls"), [((300, 280), True), ((300, 299), False), ((280, 300), False), ((350, 200, 200), False)]
)
def test_a_curve_that_still_falls_says_so(right, falls):
    """A fall of 20 of 400 images has p = 2 / 2^20, one of a single image p = 1."""
    (row,) = steps_scores(curve(*right))
    assert row.value == pytest.approx((right[-2] - right[-1]) / 400)
    assert row.low <= row.value <= row.high
    assert row.settings[DETAILS]["still_falling"] is falls
    assert ("warning" in row.settings[DETAILS]) is falls
    assert row.condition.endswith("0 steps")  # whatever was found, so that models share a line
    result = Result(model="mine", benchmark="mine", rows=(row,))
    assert ("not genuine" in str(result)) is falls
    if right == (300, 280):
        assert row.settings[DETAILS]["p_value"] == pytest.approx(2 * 2.0**-20)


def test_one_point_is_no_curve():
    assert list(steps_scores(curve(300))) == []


PUBLISHED = {
    "XCiT-S12": ((2.1252, 2.2014, 2.2463, 2.2614, 2.2793), (6.76, 3.42, 1.45, 0.79)),
    "GELU ResNet-50": ((2.3133, 2.4173, 2.5259, 2.5837, 2.6498), (12.70, 8.77, 4.68, 2.49)),
    "XCiT-S12 canonical": ((2.0036, 2.3030, 2.9123, 4.1818, 7.0335), (71.51, 67.26, 58.59, 40.54)),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_effectiveness_of_the_published_losses(model):
    """Debenedetti et al., arXiv:2209.07399; the table is rounded to a hundredth of a per cent."""
    losses, expected = PUBLISHED[model]
    found = [with_losses(steps, (loss,)) for steps, loss in zip((1, 2, 5, 10, 200), losses, strict=True)]
    rows = list(effectiveness_scores(found))
    gaps = [row for row in rows if row.metric == "attack_effectiveness"]
    assert [row.settings["of"]["steps"] for row in gaps] == [1, 2, 5, 10]
    assert [100 * row.value for row in gaps] == pytest.approx(expected, abs=0.0101)
    ratios = [row.value for row in rows if row.metric == "attack_effectiveness_ratio"]
    assert ratios == pytest.approx([loss / losses[-1] for loss in losses[:-1]])
    assert [row.value for row in rows if row.metric == "loss"] == pytest.approx(losses)
    assert {row.settings["oracle_steps"] for row in gaps} == {200}


def test_effectiveness_is_the_mean_over_starts_with_its_deviation():
    short, oracle = (1.0, 1.5, 1.2), (2.0, 2.5, 1.6)
    rows = list(effectiveness_scores([with_losses(1, short), with_losses(200, oracle)]))
    gap = next(row for row in rows if row.metric == "attack_effectiveness")
    by_start = [abs(most - some) / most for some, most in zip(short, oracle, strict=True)]
    assert gap.value == pytest.approx(statistics.fmean(by_start))
    assert gap.settings[DETAILS]["starts"] == pytest.approx(by_start)
    assert gap.settings[DETAILS]["deviation"] == pytest.approx(statistics.stdev(by_start))
    assert gap.low <= gap.value <= gap.high


def test_a_model_without_any_loss_has_scores_too():
    rows = list(effectiveness_scores([with_losses(1, (0.0,), 0.0), with_losses(200, (0.0,), 0.0)]))
    assert all(np.isfinite(row.value) for row in rows)


def test_the_spread_is_that_of_the_starts_of_an_image():
    """Not that of images: their means differ by far more."""
    losses = np.array([[1.0, 2.0, 3.0], [10.0, 10.0, 10.0], [5.0, 6.0, 7.0]])
    more = {loss_column(start): losses[:, start] for start in range(3)}
    rows = list(convergence_scores([answers(3, more=more, steps=5, starts=3)]))
    assert {row.metric: row.value for row in rows} == {
        "loss": pytest.approx(6.0),
        "loss_spread": pytest.approx((1.0 + 0.0 + 1.0) / 3),
    }
    assert {row.unit for row in rows} == {"nats"}


def test_semantic_accuracy_counts_the_true_class():
    labels = np.array([0, 1, 2, 1])
    more = {judged_column("a"): np.array([0, 1, 0, 0]), judged_column("b"): labels}
    found = answers(4, labels=labels, more=more, kind="semantic", attack="PGD", judges={"a": "1", "b": "2"})
    first, second = semantic_scores([found])
    assert (first.value, second.value) == (0.5, 1.0)
    assert (first.settings["judge"], first.settings["judge_sha256"]) == ("a", "1")
    assert first.low < 0.5 < first.high


def test_the_distribution_over_masks_is_that_of_the_accuracies():
    random = np.random.default_rng(0)
    right = random.random((30, 70)) < random.random((30, 1))
    columns = [sum(int(bit) << place for place, bit in enumerate(row[:62])) for row in right]
    rest = [sum(int(bit) << place for place, bit in enumerate(row[62:])) for row in right]
    more = {mask_column(0): np.array(columns), mask_column(1): np.array(rest)}
    rows = {
        row.settings["statistic"]: row
        for row in occlusion_scores([answers(30, more=more, kind="occlusion", masks=70, share=0.1, patch_size=2)])
    }
    accuracies = [sum(right[:, mask].tolist()) / 30 for mask in range(70)]
    assert rows["mean"].settings[DETAILS]["accuracies"] == pytest.approx(accuracies)
    assert rows["mean"].value == pytest.approx(sum(accuracies) / 70)
    assert (rows["minimum"].value, rows["maximum"].value) == (min(accuracies), max(accuracies))
    assert rows["median"].value == pytest.approx(statistics.median(accuracies))
    quartiles = statistics.quantiles(accuracies, method="inclusive")
    assert [rows[name].value for name in ("lower quartile", "median", "upper quartile")] == pytest.approx(quartiles)
    assert set(rows) == {*QUANTILES, "mean"}
    assert all(row.low <= row.high for row in rows.values())
    assert rows["mean"].low < rows["mean"].value < rows["mean"].high


def test_the_histogram_counts_every_image_once():
    similarity = np.array([0.0, 0.04, 0.05, 0.43, 0.91, 1.0, 1.0000001])
    more = {SIMILARITY: similarity, LAYERS: np.full(7, 12)}
    mean, lowest = attention_scores([answers(7, more=more, kind="attention", masks=1)])
    details = mean.settings[DETAILS]
    assert details["layers"] == 12
    assert sum(details["histogram"]["counts"]) == 7
    assert details["histogram"]["counts"][:2] == [2, 1]
    assert details["histogram"]["counts"][-1] == 2
    assert mean.value == pytest.approx(similarity.mean())
    assert (lowest.value, lowest.settings[DETAILS]["image"]) == (0.0, 0)


def test_a_single_image_has_scores_without_intervals():
    found = answers(1, more={SIMILARITY: np.array([0.5]), LAYERS: np.array([3])}, kind="attention")
    assert [(row.value, row.low) for row in attention_scores([found])] == [(0.5, None), (0.5, None)]


@pytest.mark.parametrize(
    "scores", [steps_scores, effectiveness_scores, convergence_scores, occlusion_scores, attention_scores]
)
def test_nothing_gives_no_scores(scores):
    assert list(scores([])) == []


def test_no_images_give_no_scores():
    none = answers(0, kind="occlusion", masks=70, starts=3, steps=1, judges={"a": ""}, more={SIMILARITY: np.empty(0)})
    for scores in (steps_scores, effectiveness_scores, convergence_scores, occlusion_scores, semantic_scores,
                   attention_scores):  # fmt: skip
        assert list(scores([none, none])) == []
