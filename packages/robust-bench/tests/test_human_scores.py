"""Scores of the model-vs-human sets from what a model said."""

import csv
import json

import numpy as np
import pytest
from robust_bench.answers import Answers
from robust_bench.benchmarks.human_scores import human_scores, part_name
from robust_bench.datasets.human_responses import Response
from robust_bench.datasets.stimulus import CATEGORIES, IMAGES, stimulus
from robust_bench.metrics import clopper_pearson

CONTRAST = {"c100": 4, "c50": 4, "c10": 6, "c05": 5, "c01": 3}


def said(dataset, names, decisions, benchmark=None, kind="clean"):
    labels = np.array([CATEGORIES.index(stimulus(dataset, name).category) for name in names], dtype=np.int64)
    predictions = np.array([CATEGORIES.index(decision) for decision in decisions], dtype=np.int64)
    return Answers(
        benchmark=benchmark or part_name(dataset, "mean"),
        settings={"kind": kind},
        condition=kind,
        ids=np.arange(len(names)),
        labels=labels,
        predictions=predictions,
        confidences=np.ones(len(names), dtype=np.float32),
        right=labels == predictions,
        names=tuple(names),
    )


def contrast(right):
    """Pictures of knives at several contrasts, of which some are right per condition."""
    names, decisions = [], []
    for condition, count in CONTRAST.items():
        for number in range(count):
            names.append(f"dnn/session-1/{len(names):04d}_cop_dnn_{condition}_knife_10_n03041632_{len(names)}.png")
            decisions.append("knife" if number < right[condition] else "oven")
    return said("contrast", names, decisions)


def answered(answers, observer, answer):
    """The responses of a person to the pictures of answers; `answer(position)` says whether it is right."""
    return [
        Response(
            observer=observer,
            session=1,
            trial=number + 1,
            seconds=None,
            answer=stimulus("contrast", name).category if answer(number) else None,
            category=stimulus("contrast", name).category,
            condition=stimulus("contrast", name).condition,
            stimulus=stimulus("contrast", name).id,
        )
        for number, name in enumerate(answers.names)
    ]


def test_accuracy_per_condition_and_over_those_that_count():
    right = {"c100": 4, "c50": 3, "c10": 2, "c05": 0, "c01": 0}
    rows = human_scores({"model-vs-human-contrast": (contrast(right),)}, sets=["contrast"])
    by_condition = [row for row in rows if row.settings["kind"] == "condition"]
    assert [(row.condition, row.correct, row.count, row.settings["left_out"]) for row in by_condition] == [
        ("contrast c01", 0, 3, True),
        ("contrast c05", 0, 5, False),
        ("contrast c10", 2, 6, False),
        ("contrast c50", 3, 4, False),
        ("contrast c100", 4, 4, True),
    ]
    assert (by_condition[2].low, by_condition[2].high) == clopper_pearson(2, 6)
    (score,) = [row for row in rows if row.settings["kind"] == "score"]
    assert (score.metric, score.condition, score.benchmark) == ("ood_accuracy", "contrast", "model-vs-human-contrast")
    assert (score.value, score.count) == (pytest.approx(5 / 15), 15)
    assert 0.0 < score.low < score.value < score.high < 1.0


def test_scores_depend_on_the_parts_of_their_own_sets_alone():
    mine = (contrast({"c100": 4, "c50": 3, "c10": 2, "c05": 0, "c01": 0}),)
    other = (said("edge", ["cat/cat1.png"], ["cat"]), said("edge", ["cat/cat1.png"], ["dog"]))
    found = {"model-vs-human-contrast": mine, "model-vs-human-edge": other, "imagenet-val": other}
    alone = human_scores({"model-vs-human-contrast": mine}, sets=["contrast"])
    assert human_scores(found, sets=["contrast"]) == alone
    assert human_scores(found, sets=["sketch"]) == human_scores({}, sets=["contrast"]) == ()
    attacked = (said("edge", ["cat/cat1.png"], ["dog"], kind="attack"), other[0])
    (row,) = human_scores({"model-vs-human-edge": attacked}, sets=["edge"])
    assert (row.value, row.count, row.low) == (1.0, 1, None)


def test_the_two_aggregations_never_share_a_row():
    names = ["cat/cat1-dog1.png", "cat/cat2-dog1.png", "dog/dog1-cat1.png"]
    mean = said("cue-conflict", names, ["cat", "dog", "dog"], benchmark="cue-conflict")
    largest = said("cue-conflict", names, ["dog", "dog", "dog"], benchmark="cue-conflict-max")
    rows = human_scores({"cue-conflict": (mean,), "cue-conflict-max": (largest,)}, sets=["cue-conflict"])
    biases = {row.benchmark: row.value for row in rows if row.metric == "shape_bias"}
    assert biases == {"cue-conflict": pytest.approx(2 / 3), "cue-conflict-max": pytest.approx(1 / 3)}
    assert {(row.benchmark, row.settings["aggregation"]) for row in rows} == {
        ("cue-conflict", "mean"),
        ("cue-conflict-max", "max"),
    }


def names_of(dataset):
    """Two pictures under a condition that counts, the second of which the model below gets wrong."""
    if dataset == "cue-conflict":
        return ["cat/cat1-dog1.png", "cat/cat2-dog1.png"]
    if dataset in ("edge", "silhouette"):
        return ["cat/cat1.png", "cat/cat2.png"]
    condition = {"colour": "bw", "contrast": "c10", "power-equalisation": "pow", "false-colour": "false"}
    condition |= {
        "high-pass": "1",
        "low-pass": "3",
        "phase-scrambling": "30",
        "rotation": "90",
        "uniform-noise": "0.10",
    }
    condition |= {"eidolonI": "4-10-10", "eidolonII": "4-3-10", "eidolonIII": "4-0-10"}
    return [f"{n}_x_dnn_{condition.get(dataset, '0')}_cat_10_n02123045_{n}.png" for n in (1, 2)]


def test_ood_accuracy_is_over_all_17_sets_or_not_given():
    found = {}
    for number, dataset in enumerate(IMAGES):
        decisions = ["cat", "cat"] if number == 0 else ["cat", "dog"]
        found[part_name(dataset, "mean")] = (said(dataset, names_of(dataset), decisions),)
    rows = human_scores(found, sets=tuple(IMAGES))
    (total,) = [row for row in rows if row.benchmark == "model-vs-human"]
    assert (total.metric, total.condition, total.count) == ("ood_accuracy", "17 sets", 34)
    assert total.value == pytest.approx((1.0 + 16 * 0.5) / 17)
    assert total.low < total.value < total.high
    assert sum(row.metric == "ood_accuracy" for row in rows) == 18
    del found["model-vs-human-sketch"]
    assert "model-vs-human" not in [row.benchmark for row in human_scores(found, sets=tuple(IMAGES))]


def test_beside_people():
    # The model is right on even positions, A as the model, B nowhere.
    answers = contrast({"c100": 4, "c50": 2, "c10": 3, "c05": 1, "c01": 3})
    people = answered(answers, "subject-01", lambda number: answers.right[number])
    people += answered(answers, "subject-02", lambda number: False)
    rows = human_scores({"model-vs-human-contrast": (answers,)}, sets=["contrast"], humans={"contrast": people})
    values = {(row.settings["of"], row.metric): row for row in rows if row.settings["kind"] == "score"}
    accuracy = (2 / 4, 3 / 6, 1 / 5)
    assert {key: row.value for key, row in values.items()} == {
        ("model", "ood_accuracy"): pytest.approx(6 / 15),
        ("people", "ood_accuracy"): pytest.approx(6 / 15 / 2),
        ("model and people", "accuracy_difference"): pytest.approx(np.mean(np.square(accuracy)) / 2),
        ("model and people", "observed_consistency"): pytest.approx((1 + 1 - np.mean(accuracy)) / 2),
        ("model and people", "error_consistency"): pytest.approx((1 + 0) / 2),
        ("pairs of people", "accuracy_difference"): pytest.approx(np.mean(np.square(accuracy))),
        ("pairs of people", "observed_consistency"): pytest.approx(1 - np.mean(accuracy)),
        ("pairs of people", "error_consistency"): pytest.approx(0.0),
    }
    numbers = {metric for (_, metric), row in values.items() if row.unit == "number"}
    assert numbers == {"accuracy_difference", "error_consistency"}
    assert {row.settings["people"]["contrast"] for key, row in values.items() if key[0] != "model"} == {2}
    alone = human_scores({"model-vs-human-contrast": (answers,)}, sets=["contrast"])
    assert alone == tuple(row for row in rows if row.settings.get("of", "model") == "model")


def test_one_person_has_no_pairs():
    answers = contrast(CONTRAST)
    people = answered(answers, "subject-01", lambda number: True)
    rows = human_scores({"model-vs-human-contrast": (answers,)}, sets=["contrast"], humans={"contrast": people})
    assert {row.settings.get("of") for row in rows} == {None, "model", "people", "model and people"}


def test_a_picture_that_people_have_not_seen_is_named():
    answers = contrast(CONTRAST)
    people = answered(answers, "subject-01", lambda number: True)
    lacking = [each for each in people if each.stimulus != "n03041632_5"]
    with pytest.raises(ValueError, match=r"contrast, condition c50, the model and subject-01: .*'n03041632_5'"):
        human_scores({"model-vs-human-contrast": (answers,)}, sets=["contrast"], humans={"contrast": lacking})


def test_a_picture_that_was_skipped_is_left_out_of_people_s_answers_too():
    answers = contrast(CONTRAST)
    people = answered(answers, "subject-01", lambda number: number != 5)
    kept = np.arange(len(answers)) != 5
    fields = {name: getattr(answers, name)[kept] for name in ("ids", "labels", "predictions", "confidences", "right")}
    names = tuple(name for name, keep in zip(answers.names, kept, strict=True) if keep)
    shorter = Answers(benchmark="b", settings={"kind": "clean"}, condition="clean", names=names, **fields)
    rows = human_scores({"model-vs-human-contrast": (shorter,)}, sets=["contrast"], humans={"contrast": people})
    assert {row.value for row in rows if row.metric == "observed_consistency"} == {1.0}
    assert {row.count for row in rows if row.metric == "observed_consistency"} == {14}


@pytest.mark.shared_data
@pytest.mark.parametrize("model", ["resnet50", "resnet50_train_60_epochs"])
def test_published_answers_to_edges(shared, model):
    with (shared / "metrics" / "edge_responses.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    expected = json.loads((shared / "metrics" / "error_consistency_expected.json").read_text())["edge"]
    answers = said("edge", [f"{row['category']}/{row['stim']}.png" for row in table], [row[model] for row in table])
    people = [
        Response(
            observer=name,
            session=1,
            trial=number,
            seconds=None,
            answer=None if row[name] == "na" else row[name],
            category=row["category"],
            condition="0",
            stimulus=row["stim"],
        )
        for name in table[0]
        if name.startswith("subject")
        for number, row in enumerate(table, start=1)
    ]
    rows = human_scores({"model-vs-human-edge": (answers,)}, sets=["edge"], humans={"edge": people})
    kappas = {row.settings["of"]: row for row in rows if row.metric == "error_consistency"}
    assert kappas["pairs of people"].value == pytest.approx(0.31844, abs=5e-6)
    published = {"resnet50": 0.04526, "resnet50_train_60_epochs": 0.10677}[model]
    assert kappas["model and people"].value == pytest.approx(published, abs=5e-6)
    for row in kappas.values():
        assert row.low < row.value < row.high
        assert row.count == expected["n_trials"] == 160
        assert row.settings["people"] == {"edge": 10}
    observed = {row.settings["of"]: row.value for row in rows if row.metric == "observed_consistency"}
    pairs = {pair: values[1] for pair, values in expected["pairs"].items()}
    with_model = [value for pair, value in pairs.items() if set(pair.split("|")) & {model} and "subject" in pair]
    assert observed["model and people"] == pytest.approx(np.mean(with_model), abs=1e-5)
    among = [value for pair, value in pairs.items() if pair.count("subject") == 2]
    assert observed["pairs of people"] == pytest.approx(np.mean(among), abs=1e-5)
