"""Scores over corruptions, from hand-made answers."""

import numpy as np
import pytest
from robust_bench.answers import Answers
from robust_bench.benchmarks.corruption_scores import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corruption_scores,
    error_scores,
)
from robust_bench.conditions.stored import Stored
from robust_bench.metrics import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS

IMAGES = 500


def answers(benchmark, settings, wrong, names=None):
    count = len(wrong)
    return Answers(
        benchmark=benchmark,
        settings=settings,
        condition="",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.asarray(wrong, dtype=np.int64),
        confidences=np.ones(count, dtype=np.float32),
        right=~np.asarray(wrong, dtype=np.bool_),
        names=names,
    )


def first_wrong(share):
    return np.arange(IMAGES) < round(share * IMAGES)


def cells(benchmark, errors, corruptions=CORRUPTIONS):
    found = {}
    for corruption in corruptions:
        for severity in SEVERITIES:
            settings = Stored(corruption=corruption, severity=severity).settings
            wrong = errors(corruption, severity)
            found[f"{benchmark}/{corruption}-{severity}"] = (answers(benchmark, settings, wrong),)
    return found


def alexnet(corruption, severity):
    return first_wrong(ALEXNET_ERRORS[corruption][severity - 1])


def by_metric(rows):
    return {row.metric: row for row in rows if "corruption" not in row.settings}


def test_alexnet_itself_has_a_corruption_error_of_one():
    found = cells("imagenet-c", alexnet)
    found["imagenet-val"] = (answers("imagenet-val", {"kind": "clean"}, first_wrong(ALEXNET_CLEAN_ERROR)),)
    rows = list(corruption_scores(found, benchmark="imagenet-c", clean="imagenet-val"))
    assert len(rows) == 15 + 3
    for row in rows:
        assert row.value == pytest.approx(1.0, abs=4e-3)  # errors rounded to whole images
        assert row.low <= row.value <= row.high
        assert (row.benchmark, row.unit, row.count, row.settings["kind"]) == ("imagenet-c", "fraction", IMAGES, "score")
        assert row.settings["interval"] == {"method": "bootstrap", "resamples": 1000, "seed": 0}


def test_scores_are_those_of_the_definitions():
    random = np.random.default_rng(1)
    wrong = {(name, level): random.random(IMAGES) < 0.1 * level for name in CORRUPTIONS for level in SEVERITIES}
    clean = random.random(IMAGES) < 0.1
    found = cells("imagenet-c", lambda name, level: wrong[name, level])
    found["imagenet-val"] = (answers("imagenet-val", {"kind": "clean"}, clean),)
    rows = list(corruption_scores(found, benchmark="imagenet-c", clean="imagenet-val"))

    sums = {name: sum(wrong[name, level].mean() for level in SEVERITIES) for name in CORRUPTIONS}
    ce = {name: sums[name] / sum(ALEXNET_ERRORS[name]) for name in CORRUPTIONS}
    assert {row.settings["corruption"]: row.value for row in rows if "corruption" in row.settings} == pytest.approx(ce)
    assert {row.metric for row in rows if "corruption" in row.settings} == {"corruption_error"}
    scores = by_metric(rows)
    assert scores["mean_corruption_error"].value == pytest.approx(np.mean(list(ce.values())))
    quiet = [ce[name] for name in CORRUPTIONS if not name.endswith("noise")]
    assert len(quiet) == 12
    assert scores["mean_corruption_error_without_noise"].value == pytest.approx(np.mean(quiet))
    relative = [
        (sums[name] - 5 * clean.mean()) / (sum(ALEXNET_ERRORS[name]) - 5 * ALEXNET_CLEAN_ERROR) for name in CORRUPTIONS
    ]
    assert scores["relative_mean_corruption_error"].value == pytest.approx(np.mean(relative))


def test_the_interval_resamples_images_for_all_cells_alike():
    """An image that is wrong everywhere or nowhere moves all cells together: the score is a binomial share."""
    wrong = first_wrong(0.3)
    rows = corruption_scores(cells("imagenet-c", lambda *_: wrong), benchmark="imagenet-c")
    row = by_metric(rows)["mean_corruption_error"]
    spread = 1.96 * np.sqrt(0.3 * 0.7 / IMAGES) * row.value / 0.3
    assert row.high - row.low == pytest.approx(2 * spread, rel=0.1)  # independent cells would give a ninth of it


def test_partial_sets_give_no_mean():
    found = cells("imagenet-c", alexnet)
    del found["imagenet-c/fog-3"]
    rows = list(corruption_scores(found, benchmark="imagenet-c"))
    assert {row.metric for row in rows} == {"corruption_error"}
    assert {row.settings["corruption"] for row in rows} == set(CORRUPTIONS) - {"fog"}
    assert list(corruption_scores({}, benchmark="imagenet-c")) == []
    assert list(error_scores(found, benchmark="imagenet-c")) == []


def test_without_clean_images_there_is_no_relative_score():
    metrics = by_metric(corruption_scores(cells("imagenet-c", alexnet), benchmark="imagenet-c", clean="imagenet-val"))
    assert set(metrics) == {"mean_corruption_error", "mean_corruption_error_without_noise"}


def test_extra_corruptions_do_not_count():
    found = cells("imagenet-c", alexnet)
    (before,) = error_scores(found, benchmark="imagenet-c")
    found |= cells("imagenet-c", lambda *_: first_wrong(1.0), EXTRA_CORRUPTIONS)
    assert list(error_scores(found, benchmark="imagenet-c")) == [before]


def test_parts_of_other_benchmarks_do_not_count():
    found = cells("cifar-10-c", lambda *_: first_wrong(0.5)) | cells("cifar-100-c", lambda *_: first_wrong(0.9))
    (row,) = error_scores(found, benchmark="cifar-10-c")
    assert (row.benchmark, row.metric, row.value) == ("cifar-10-c", "mean_error", pytest.approx(0.5))


def test_conditions_of_one_part_count_as_well():
    found = {
        "digits-c": tuple(
            answers("digits", Stored(corruption=name, severity=level).settings, first_wrong(0.1 * level))
            for name in CORRUPTIONS
            for level in SEVERITIES
        )
    }
    (row,) = error_scores(found, benchmark="digits-c")
    assert row.value == pytest.approx(0.3)


def test_an_image_that_was_skipped_somewhere_is_left_out_everywhere():
    names = tuple(f"n/{number}" for number in range(IMAGES))
    found = {
        part: (answers("imagenet-c", each.settings, first_wrong(0.5), names),)
        for part, (each,) in cells("imagenet-c", alexnet).items()
    }
    fog = Stored(corruption="fog", severity=3).settings
    found["imagenet-c/fog-3"] = (answers("imagenet-c", fog, first_wrong(0.5)[50:], names[50:]),)
    (row,) = error_scores(found, benchmark="imagenet-c")
    assert row.count == IMAGES - 50
    assert row.value == pytest.approx((0.5 * IMAGES - 50) / (IMAGES - 50))
