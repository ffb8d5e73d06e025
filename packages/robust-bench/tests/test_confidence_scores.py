"""Calibration and AURRA as rows."""

import numpy as np
import pytest
from robust_bench.answers import Answers
from robust_bench.benchmarks.confidence_scores import CALIBRATION, SILENCE, confidence_scores


def answers(confidences, right):
    count = len(right)
    return Answers(
        benchmark="imagenet-a",
        settings={"kind": "clean"},
        condition="clean",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.asarray(confidences, dtype=np.float32),
        right=np.asarray(right, dtype=np.bool_),
    )


def test_rows_are_the_scores_by_their_definitions():
    random = np.random.default_rng(0)
    confidences, right = random.random(200), random.random(200) < 0.6
    rows = {row.metric: row for row in confidence_scores(answers(confidences, right), {**CALIBRATION, **SILENCE})}
    ascending = np.argsort(confidences)
    gaps = [abs(confidences[some].mean() - right[some].mean()) for some in (ascending[:100], ascending[100:])]
    assert rows["rms_calibration_error"].value == pytest.approx(np.sqrt(np.mean(np.square(gaps))), abs=1e-6)
    assert rows["mean_absolute_calibration_error"].value == pytest.approx(np.mean(gaps), abs=1e-6)
    descending = right[ascending[::-1]]
    silent = np.mean([descending[: most + 1].mean() for most in range(200)])
    assert rows["aurra"].value == pytest.approx(silent, abs=1e-6)
    for row in rows.values():
        assert (row.benchmark, row.condition, row.count, row.unit) == ("imagenet-a", "clean", 200, "fraction")
        assert row.settings == {"kind": "score", "interval": {"method": "bootstrap", "resamples": 1000, "seed": 0}}
        assert row.low < row.high
    assert rows["aurra"].low < rows["aurra"].value < rows["aurra"].high


@pytest.mark.parametrize("count", [0, 1])
def test_there_is_no_interval_of_fewer_than_two_images(count):
    assert list(confidence_scores(answers([0.5] * count, [True] * count), CALIBRATION)) == []
