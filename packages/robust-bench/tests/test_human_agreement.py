"""The interval of the mean error consistency against the metrics and a slow bootstrap."""

import numpy as np
import pytest
import torch
from robust_bench.benchmarks.human_agreement import Pairs, among_people, error_consistency_interval, with_people
from robust_bench.benchmarks.human_answers import LEFT_OUT, SetAnswers
from robust_bench.datasets.human_responses import Response
from robust_bench.metrics import bootstrap, error_consistency, mean_over_human_pairs, mean_over_humans

CONDITIONS = {"edge": {"0": 30}, "contrast": {"c100": 8, "c50": 9, "c10": 21}}
PEOPLE = {"edge": 5, "contrast": 3}


def seen(dataset, seed):
    """A model and people who are right at random, in an order of their own."""
    rng = np.random.default_rng(seed)
    model = {
        condition: {f"n{number}": bool(rng.random() < 0.6) for number in rng.permutation(count)}
        for condition, count in CONDITIONS[dataset].items()
    }
    responses = [
        Response(
            observer=f"subject-{person:02d}",
            session=1,
            trial=1,
            seconds=None,
            answer="cat" if rng.random() < 0.7 else None,
            category="cat",
            condition=condition,
            stimulus=f"n{number}",
        )
        for person in range(PEOPLE[dataset])
        for condition, count in CONDITIONS[dataset].items()
        for number in rng.permutation(count)
    ]
    return SetAnswers(
        dataset=dataset,
        benchmark=dataset,
        aggregation="mean",
        pictures=(),
        labels=(),
        decisions=(),
        model=model,
        responses=responses,
    )


@pytest.fixture
def both():
    return [seen("edge", 1), seen("contrast", 2)]


def test_the_score_is_that_of_the_metrics(both):
    model = {each.dataset: each.model for each in both}
    people = {each.dataset: each.people for each in both}
    with_model = error_consistency_interval([with_people(each) for each in both], resamples=2)
    assert with_model.value == pytest.approx(mean_over_humans(model, people, error_consistency, LEFT_OUT))
    among = error_consistency_interval([among_people(each) for each in both], resamples=2)
    assert among.value == pytest.approx(mean_over_human_pairs(people, error_consistency, LEFT_OUT))


def test_the_interval_is_that_of_drawing_pictures_within_conditions(both):
    contrast = both[1]
    conditions = [(condition, list(contrast.model[condition])) for condition in ("c50", "c10")]
    listed = [(condition, picture) for condition, pictures in conditions for picture in pictures]

    def statistic(positions):
        values = []
        for mine in contrast.people.values():
            for condition, _ in conditions:
                drawn = [listed[at][1] for at in positions.tolist() if listed[at][0] == condition]
                columns = [[answers[condition][picture] for picture in drawn] for answers in (contrast.model, mine)]
                values.append(error_consistency(*columns))
        return float(np.mean(values))

    strata = [["c50", "c10"].index(condition) for condition, _ in listed]
    slow = bootstrap((torch.arange(len(listed)),), statistic, strata=strata, resamples=50, seed=3)
    quick = error_consistency_interval([with_people(contrast)], resamples=50, seed=3)
    assert (quick.value, quick.low, quick.high) == pytest.approx((slow.value, slow.low, slow.high))
    assert quick.low < quick.value < quick.high
    assert (quick.resamples, quick.seed) == (50, 3)


def test_those_who_err_alike_agree_in_every_resample():
    right = np.array([[True, False, True, True]])
    found = error_consistency_interval([[Pairs(one=right, other=right)]], resamples=20)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    opposite = error_consistency_interval([[Pairs(one=right, other=~right)]], resamples=20)
    assert opposite.value == pytest.approx((0.0 - 0.375) / (1.0 - 0.375))


def test_a_single_picture_has_no_interval():
    assert error_consistency_interval([[Pairs(one=np.array([[True]]), other=np.array([[True]]))]]) is None
