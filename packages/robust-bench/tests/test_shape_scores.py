"""Shape bias and its kin on made-up decisions about cue-conflict."""

import pytest
import torch
from robust_bench.benchmarks.human_answers import SetAnswers
from robust_bench.benchmarks.shape_scores import shape_rows
from robust_bench.datasets.human_responses import Response
from robust_bench.metrics import bootstrap, shape_bias

PICTURES = [f"cat{number}-elephant1" for number in range(1, 31)] + [f"dog{number}-dog2" for number in range(1, 6)]


def seen(decisions, pictures=PICTURES, responses=()):
    return SetAnswers(
        dataset="cue-conflict",
        benchmark="cue-conflict-max",
        aggregation="max",
        pictures=tuple(pictures),
        labels=tuple(picture.rstrip("0123456789").split("-")[0].rstrip("0123456789") for picture in pictures),
        decisions=tuple(decisions),
        model={},
        responses=responses,
    )


def response(observer, number, answer, picture):
    return Response(
        observer=observer,
        session=1,
        trial=number,
        seconds=0.7,
        answer=answer,
        category="cat" if picture.startswith("cat") else "dog",
        condition="0",
        stimulus=picture,
    )


def test_counts_conflicts_decided_for_shape_or_texture():
    # Of 30 conflicts 6 go by shape, 12 by texture, 12 by neither; the 5 without a conflict must not count.
    rows = list(shape_rows(seen(["cat"] * 6 + ["elephant"] * 12 + ["oven"] * 12 + ["dog"] * 5)))
    assert [(row.metric, row.count) for row in rows] == [("shape_bias", 30), ("cue_share", 30)]
    assert [row.value for row in rows] == pytest.approx([6 / 18, 18 / 30])
    for row in rows:
        assert 0.0 < row.low < row.value < row.high < 1.0
        assert row.benchmark == "cue-conflict-max"
        assert row.unit == "fraction"
        assert row.settings == {
            "kind": "score",
            "set": "cue-conflict",
            "of": "model",
            "aggregation": "max",
            "interval": {"method": "bootstrap", "resamples": 1000, "seed": 0},
        }


def test_the_interval_is_over_pictures_in_conflict():
    decisions = ["cat"] * 6 + ["elephant"] * 12 + ["oven"] * 12

    def statistic(positions):
        drawn = [decisions[at] for at in positions.tolist()]
        return shape_bias(drawn, ["cat"] * len(drawn), ["elephant"] * len(drawn))

    slow = bootstrap((torch.arange(30),), statistic)
    row = next(shape_rows(seen([*decisions, *["dog"] * 5])))
    assert (row.low, row.high) == pytest.approx((slow.low, slow.high))


def test_gives_only_what_is_defined():
    assert list(shape_rows(seen(["dog"] * 5, pictures=PICTURES[30:]))) == []
    undecided = list(shape_rows(seen(["oven"] * 35)))
    assert [(row.metric, row.value) for row in undecided] == [("cue_share", 0.0)]
    lone = list(shape_rows(seen(["cat"] + ["oven"] * 34)))  # a third of the resamples have no decision for either
    assert [(row.metric, row.low) for row in lone] == [("shape_bias", None), ("cue_share", 0.0)]
    assert "interval" not in lone[0].settings


def test_people_s_shape_bias_in_both_averages():
    # A decides 3 of 4 conflicts by shape, B 1 of 2; together 4 of 6, on average 0.625.
    answers = {"A": ["cat", "cat", "cat", "elephant"], "B": ["cat", "elephant", None, "oven"]}
    responses = [
        response(f"subject-{name}", number, answer, PICTURES[number])
        for name, given in answers.items()
        for number, answer in enumerate(given)
    ]
    responses += [response(f"subject-{name}", 99, "dog", "dog1-dog2") for name in "AB"]
    rows = [row for row in shape_rows(seen(["cat"] * 35, responses=responses)) if row.metric == "human_shape_bias"]
    assert [(row.settings["average"], row.value) for row in rows] == [
        ("trials", pytest.approx(4 / 6)),
        ("observers", pytest.approx(0.625)),
    ]
    assert {row.count for row in rows} == {4}
    assert {row.settings["of"] for row in rows} == {"people"}


def test_nobody_s_shape_bias_is_made_up():
    responses = [response("subject-A", 0, "cat", PICTURES[0]), response("subject-B", 0, "oven", PICTURES[0])]
    assert "human_shape_bias" not in [row.metric for row in shape_rows(seen(["cat"] * 35, responses=responses))]
