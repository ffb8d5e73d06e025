"""Scores over sequences, from hand-made answers."""

import numpy as np
import pytest
from robust_bench.answers import Answers
from robust_bench.benchmarks.flip_scores import flip_scores, mean_flip_probability
from robust_bench.conditions.flips import FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE, Flips
from robust_bench.metrics import ALEXNET_FLIP_PROBABILITIES, mean_flip_rate

PERTURBATIONS = tuple(ALEXNET_FLIP_PROBABILITIES)


def answers(perturbation, flips, difficulty=1, benchmark="imagenet-p"):
    flips = np.asarray(flips)
    count = len(flips)
    return Answers(
        benchmark=benchmark,
        settings=Flips(perturbation=perturbation, noise=False, difficulty=difficulty).settings,
        condition="",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.ones(count, dtype=np.float32),
        right=np.ones(count, dtype=np.bool_),
        more={FLIPS: flips, TOP5_DISTANCE: 18 * flips, ZIPF_DISTANCE: 2 * flips},
    )


def sequences(flips, names=PERTURBATIONS, part="imagenet-p"):
    return {f"{part}/{name}": (answers(name, flips(name)),) for name in names}


def scores(found, benchmark="imagenet-p", mean=mean_flip_rate):
    return list(flip_scores(found, benchmark=benchmark, perturbations=PERTURBATIONS, mean=mean))


def test_alexnets_flips_have_a_rate_of_one():
    rows = scores(sequences(lambda name: [ALEXNET_FLIP_PROBABILITIES[name]] * 20))
    assert len(rows) == 10 * 3 + 1
    assert (rows[-1].metric, rows[-1].value) == ("mean_flip_rate", pytest.approx(1.0))
    assert rows[-1].condition == "10 perturbations"


def test_rows_are_means_over_sequences():
    random = np.random.default_rng(0)
    flips = {name: random.random(300) for name in PERTURBATIONS}
    rows = scores(sequences(flips.__getitem__))
    for name in PERTURBATIONS:
        mine = {row.metric: row for row in rows if row.settings.get("perturbation") == name}
        mean = flips[name].mean()
        expected = {"flip_probability": mean, "top5_distance": 18 * mean, "zipf_distance": 2 * mean}
        assert {metric: row.value for metric, row in mine.items()} == pytest.approx(expected)
        assert [row.unit for row in mine.values()] == ["fraction", "distance", "distance"]
        for row in mine.values():
            assert row.low < row.value < row.high
            assert row.count == 300
    rates = [flips[name].mean() / ALEXNET_FLIP_PROBABILITIES[name] for name in PERTURBATIONS]
    assert rows[-1].value == pytest.approx(np.mean(rates))


def test_a_missing_perturbation_means_no_mean():
    found = sequences(lambda _: [0.1] * 5, PERTURBATIONS[1:])
    assert {row.metric for row in scores(found)} == {"flip_probability", "top5_distance", "zipf_distance"}
    assert scores({}) == []


def test_extra_perturbations_are_reported_and_do_not_count():
    found = sequences(lambda _: [0.1] * 5)
    before = scores(found)[-1].value
    rows = scores(found | sequences(lambda _: [1.0] * 5, ["shear"]))
    assert rows[-1].value == before
    assert any(row.settings.get("perturbation") == "shear" for row in rows)


def test_another_difficulty_is_another_benchmark():
    found = sequences(lambda _: [0.1] * 5)
    found |= {f"imagenet-p-2/{name}": (answers(name, [0.5] * 5, difficulty=2),) for name in PERTURBATIONS}
    assert scores(found)[-1].settings["difficulty"] == 1
    row = scores(found, "imagenet-p-2", mean_flip_probability)[-1]
    assert (row.metric, row.value, row.benchmark) == ("mean_flip_probability", pytest.approx(0.5), "imagenet-p")
    assert row.condition == "10 perturbations, difficulty 2"
    assert row.settings["difficulty"] == 2
