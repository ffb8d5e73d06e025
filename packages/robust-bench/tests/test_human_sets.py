"""Which conditions count on the model-vs-human sets, and the order of the means."""

import csv
import random
from collections import Counter
from itertools import combinations
from statistics import mean

import pytest
from robust_bench.metrics.consistency import accuracy_difference, error_consistency, observed_consistency
from robust_bench.metrics.human_sets import (
    LEFT_OUT_CONDITIONS,
    kept_conditions,
    mean_over_human_pairs,
    mean_over_humans,
    ood_accuracy,
)

CONDITIONS = {
    "edge": {"0": 30},
    "contrast": {"c100": 8, "c50": 9, "c10": 21, "c01": 7},
    "uniform-noise": {"0.0": 5, "0.1": 12, "0.35": 6},
}
KEPT = {"edge": ["0"], "contrast": ["c50", "c10"], "uniform-noise": ["0.1", "0.35"]}
PEOPLE = {"edge": "ABCDE", "contrast": "AB", "uniform-noise": "ABC"}


def draw(rng, dataset):
    return {
        condition: {f"{condition}-{number}": rng.random() < 0.6 for number in range(count)}
        for condition, count in CONDITIONS[dataset].items()
    }


@pytest.fixture
def model():
    rng = random.Random(1)
    return {dataset: draw(rng, dataset) for dataset in CONDITIONS}


@pytest.fixture
def humans():
    rng = random.Random(2)
    return {dataset: {name: draw(rng, dataset) for name in PEOPLE[dataset]} for dataset in CONDITIONS}


def test_the_table_of_left_out_conditions():
    assert len(LEFT_OUT_CONDITIONS) == 17
    assert sum(map(bool, LEFT_OUT_CONDITIONS.values())) == 12
    assert Counter(len(conditions) for conditions in LEFT_OUT_CONDITIONS.values()) == {0: 5, 1: 4, 3: 5, 4: 2, 5: 1}
    assert all(isinstance(condition, str) for conditions in LEFT_OUT_CONDITIONS.values() for condition in conditions)
    with pytest.raises(TypeError, match="does not support item assignment"):
        LEFT_OUT_CONDITIONS["edge"] = ("0",)


@pytest.mark.parametrize(
    ("dataset", "conditions", "kept"),
    [
        ("colour", "cr bw", "bw"),
        ("contrast", "c100 c50 c30 c15 c10 c05 c03 c01", "c50 c30 c15 c10 c05"),
        ("high-pass", "inf 3.0 1.5 1.0 0.7 0.55 0.45 0.4", "3.0 1.5 1.0 0.7"),
        ("low-pass", "0 1 3 5 7 10 15 40", "1 3 5 7 10"),
        ("phase-scrambling", "0 30 60 90 120 150 180", "30 60 90 120"),
        ("power-equalisation", "0 pow", "pow"),
        ("false-colour", "True False", "False"),
        ("rotation", "0 90 180 270", "90 180 270"),
        ("eidolonI", "1-10-10 2-10-10 4-10-10 8-10-10 16-10-10 32-10-10 64-10-10 128-10-10",
         "2-10-10 4-10-10 8-10-10 16-10-10 32-10-10"),
        ("eidolonII", "1-3-10 2-3-10 4-3-10 8-3-10 16-3-10 32-3-10 64-3-10 128-3-10", "2-3-10 4-3-10 8-3-10 16-3-10"),
        ("eidolonIII", "1-0-10 2-0-10 4-0-10 8-0-10 16-0-10 32-0-10 64-0-10 128-0-10", "2-0-10 4-0-10 8-0-10"),
        ("uniform-noise", "0.0 0.03 0.05 0.1 0.2 0.35 0.6 0.9", "0.03 0.05 0.1 0.2 0.35"),
        ("sketch", "0", "0"),
        ("silhouette", "0", "0"),
    ],
)  # fmt: skip
def test_the_kept_conditions_of_every_set(dataset, conditions, kept):
    assert kept_conditions(dataset, conditions.split()) == tuple(kept.split())


def test_conditions_of_other_sets_can_be_given():
    assert kept_conditions("fog", ["0", "1"], left_out={"fog": ["0"]}) == ("1",)
    right = {"fog": {"0": {"a": False}, "1": {"a": True}}}
    assert ood_accuracy(right, left_out={"fog": ["0"]}) == 1.0
    assert mean_over_humans(right, {"fog": {"A": right["fog"]}}, left_out={"fog": ["0"]}) == 1.0
    assert mean_over_human_pairs({"fog": {"A": right["fog"], "B": right["fog"]}}, left_out={"fog": ()}) == 1.0


def test_ood_accuracy_pools_the_kept_trials_of_a_set_and_averages_the_sets(model):
    shares = []
    for dataset, conditions in KEPT.items():
        right = [answer for condition in conditions for answer in model[dataset][condition].values()]
        shares.append(sum(right) / len(right))
    assert ood_accuracy(model) == pytest.approx(mean(shares))


@pytest.mark.parametrize("measure", [error_consistency, observed_consistency, accuracy_difference])
def test_means_over_conditions_then_people_then_sets(model, humans, measure):
    expected, flat = [], []
    for dataset, conditions in KEPT.items():
        per_person = [
            mean(measure(model[dataset][condition], trials[condition]) for condition in conditions)
            for trials in humans[dataset].values()
        ]
        flat += per_person
        expected.append(mean(per_person))
    assert mean_over_humans(model, humans, measure) == pytest.approx(mean(expected))
    assert mean(flat) != pytest.approx(mean(expected), abs=1e-4)  # the order matters on this data


@pytest.mark.parametrize("measure", [error_consistency, observed_consistency, accuracy_difference])
def test_means_over_conditions_then_pairs_then_sets(humans, measure):
    expected = []
    for dataset, conditions in KEPT.items():
        pairs = list(combinations(humans[dataset].values(), 2))
        assert len(pairs) == {"edge": 10, "contrast": 1, "uniform-noise": 3}[dataset]
        expected.append(
            mean(mean(measure(one[condition], other[condition]) for condition in conditions) for one, other in pairs)
        )
    assert mean_over_human_pairs(humans, measure) == pytest.approx(mean(expected))


def test_left_out_conditions_do_not_matter(model, humans):
    before = ood_accuracy(model), mean_over_humans(model, humans), mean_over_human_pairs(humans)
    for observer in (model["contrast"], humans["contrast"]["A"]):
        observer["c100"] = {"other": True}
        del observer["c01"]
    assert (ood_accuracy(model), mean_over_humans(model, humans), mean_over_human_pairs(humans)) == before


@pytest.mark.shared_data
def test_published_answers_to_edge_drawings(shared):
    with (shared / "metrics" / "edge_responses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def trials(name):
        return {"0": {row["stim"]: row[name] == row["category"] for row in rows}}

    people = {"edge": {name: trials(name) for name in rows[0] if name.startswith("subject")}}
    assert mean_over_human_pairs(people) == pytest.approx(0.31844, abs=5e-6)
    assert mean_over_humans({"edge": trials("resnet50")}, people) == pytest.approx(0.04526, abs=5e-6)
    shape = mean_over_humans({"edge": trials("resnet50_train_60_epochs")}, people)
    assert shape == pytest.approx(0.10677, abs=5e-6)


def test_refuses_unknown_sets_and_conditions_of_another_type():
    with pytest.raises(ValueError, match=r"unknown set 'colours', known are sketch, .*give left_out=\{'colours': "):
        kept_conditions("colours", ["bw"])
    with pytest.raises(TypeError, match=r"conditions of rotation must be text .*, got int 90: read the column as text"):
        kept_conditions("rotation", [90])
    with pytest.raises(ValueError, match=r"no condition of rotation is left: got \['0'\]"):
        kept_conditions("rotation", ["0"])
    with pytest.raises(ValueError, match=r"no condition of edge is left: got \[\]"):
        kept_conditions("edge", [])


def test_names_what_does_not_fit(model, humans):
    with pytest.raises(ValueError, match="observer is empty"):
        ood_accuracy({})
    with pytest.raises(ValueError, match="edge, condition 0 is empty"):
        ood_accuracy({"edge": {"0": {}}})
    with pytest.raises(TypeError, match="edge, condition 0 must be boolean, got text"):
        ood_accuracy({"edge": {"0": {"a": "cat"}}})
    with pytest.raises(ValueError, match="must have the same sets, they differ in contrast, edge"):
        mean_over_humans({"edge": model["edge"]}, {"contrast": humans["contrast"]})
    with pytest.raises(ValueError, match="humans is empty"):
        mean_over_humans({}, {})
    with pytest.raises(ValueError, match="humans is empty"):
        mean_over_human_pairs({})
    with pytest.raises(ValueError, match="edge must have at least 1 people, got 0"):
        mean_over_humans({"edge": model["edge"]}, {"edge": {}})
    with pytest.raises(ValueError, match="edge must have at least 2 people, got 1"):
        mean_over_human_pairs({"edge": {"A": model["edge"]}})


def test_names_the_set_the_person_and_the_condition(model, humans):
    humans["contrast"]["B"]["c50"]["new"] = True
    with pytest.raises(ValueError, match="contrast, condition c50, the model and B: both observers must have seen the"):
        mean_over_humans(model, humans)
    with pytest.raises(ValueError, match="contrast, condition c50, A and B: both observers must have seen the same"):
        mean_over_human_pairs(humans)
    del humans["contrast"]["B"]["c50"]
    with pytest.raises(
        ValueError, match=r"contrast: the model and B must have the same conditions, got \['c50', 'c10'\]"
    ):
        mean_over_humans(model, humans)
    humans["contrast"]["B"]["c50"] = {"x": "cat"}
    model["contrast"]["c50"] = humans["contrast"]["A"]["c50"] = {"x": True}
    with pytest.raises(
        TypeError, match="contrast, condition c50, the model and B: correct_b must be boolean, got text"
    ):
        mean_over_humans(model, humans)
