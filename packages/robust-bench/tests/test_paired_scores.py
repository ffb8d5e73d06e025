"""Differences of scores: every one against the slow bootstrap of both models' records together."""

import functools

import numpy as np
import pytest
import torch
from robust_bench import Result, Row, metrics
from robust_bench.answers import Answers
from robust_bench.benchmarks import cifar_p, imagenet_p
from robust_bench.benchmarks.confidence_scores import CALIBRATION, SILENCE, confidence_scores
from robust_bench.benchmarks.corruption_scores import corruption_scores, error_scores
from robust_bench.benchmarks.flip_scores import flip_scores, mean_flip_probability
from robust_bench.paired import Pair
from robust_bench.paired_scores import score_differences
from robust_bench.tables import metric_name

IMAGES = 40
RESAMPLES = 60
CELLS = [(name, severity) for name in metrics.ALEXNET_ERRORS for severity in range(1, 6)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The intervals of the results are not what is tested here."""
    for name in ("corruption_scores.bootstrap_means", "flip_scores.bootstrap_means", "confidence_scores.bootstrap"):
        function = getattr(metrics, name.partition(".")[2])
        monkeypatch.setattr(f"robust_bench.benchmarks.{name}", functools.partial(function, resamples=2))


def answers(generator, benchmark, condition, settings, *, count=IMAGES, level=0.6, names=None, **more):
    """What a model of some accuracy says of images."""
    return Answers(
        benchmark=benchmark,
        condition=condition,
        settings=settings,
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=generator.random(count).round(6).astype(np.float32),
        right=generator.random(count) < level,
        more={name: generator.random(count).round(6) * size for name, size in more.items()},
        names=names,
    )


def found_cells(seed, benchmark, *, clean=None):
    """A model's answers on a corruption set, and on the clean images."""
    generator = np.random.default_rng(seed)
    found = {
        f"{benchmark}/{name}-{severity}": (
            answers(
                generator,
                benchmark,
                f"{name} {severity}",
                {"kind": "corruption", "corruption": name, "severity": severity},
                level=0.9 - 0.1 * severity - 0.1 * seed,
            ),
        )
        for name, severity in CELLS
    }
    if clean:
        found[clean] = (answers(generator, clean, "clean", {"kind": "clean"}, level=0.9, top5=1.0),)
    return found


def compared(scores, ours, theirs):
    """What `score_differences` makes of the scores of two models."""
    pairs = [
        Pair(part=part, a=one, b=other) for part in ours for one, other in zip(ours[part], theirs[part], strict=True)
    ]
    results = (Result(model="m", benchmark="b", rows=tuple(scores(found))) for found in (ours, theirs))
    return score_differences(*results, pairs, resamples=RESAMPLES)


def columns(found, keys):
    return [torch.from_numpy(found[key][0].right) for key in keys]


def check(row, statistic, ours, theirs):
    """A difference is that of the slow bootstrap on the arrays of both models."""
    slow = metrics.bootstrap(
        [*ours, *theirs],
        lambda *drawn: statistic(*drawn[: len(ours)]) - statistic(*drawn[len(ours) :]),
        resamples=RESAMPLES,
    )
    assert (row.a, row.b) == pytest.approx((statistic(*ours), statistic(*theirs)), abs=1e-6)
    assert (row.difference, row.low, row.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-6)
    assert (row.resamples, row.seed) == (RESAMPLES, 0)
    assert row.low < row.high


def errors(right):
    """Error per corruption and severity, from who is right in 75 cells."""
    wrong = [1.0 - each.double().mean().item() for each in right]
    return {name: wrong[5 * place :][:5] for place, name in enumerate(metrics.ALEXNET_ERRORS)}


def test_all_scores_of_imagenet_c():
    ours, theirs = (found_cells(seed, "imagenet-c", clean="imagenet-val") for seed in (0, 1))
    scores = functools.partial(corruption_scores, benchmark="imagenet-c", clean="imagenet-val")
    found, left_out = compared(scores, ours, theirs)
    assert left_out == []
    by_metric = {row.metric: row for row in found}
    assert len(found) == 15 + 3
    assert set(by_metric) == {
        "corruption_error",
        "mean_corruption_error",
        "mean_corruption_error_without_noise",
        "relative_mean_corruption_error",
    }
    sides = [columns(side, ours) for side in (ours, theirs)]
    for row in found:
        match row.metric:
            case "corruption_error":
                statistic = functools.partial(error_of, row.settings["corruption"])
            case "relative_mean_corruption_error":
                statistic = relative
            case _:
                statistic = functools.partial(score_of, row.metric)
        check(row, statistic, *sides)


def error_of(name, *right):
    return sum(errors(right[:75])[name]) / sum(metrics.ALEXNET_ERRORS[name])


def relative(*right):
    return metrics.relative_mean_corruption_error(errors(right[:75]), 1.0 - right[75].double().mean().item())


def score_of(metric, *right):
    return getattr(metrics, metric)(errors(right[:75]))


def test_the_mean_error_of_cifar_c():
    ours, theirs = (found_cells(seed, "cifar-10-c") for seed in (0, 1))
    (row,), left_out = compared(functools.partial(error_scores, benchmark="cifar-10-c"), ours, theirs)
    assert (row.metric, row.condition, left_out) == ("mean_error", "15 corruptions", [])
    check(row, functools.partial(score_of, "mean_error"), columns(ours, ours), columns(theirs, theirs))


def test_images_that_one_cell_lacks_are_left_out_of_all_cells():
    ours, theirs = (found_cells(seed, "cifar-10-c") for seed in (0, 1))
    names = tuple(f"{number}.png" for number in range(IMAGES))
    for found in (ours, theirs):
        for part, (one,) in found.items():
            last = IMAGES - (part == "cifar-10-c/fog-3")
            found[part] = (cut(one, slice(0, last), names),)
    (row,), _ = compared(functools.partial(error_scores, benchmark="cifar-10-c"), ours, theirs)
    assert row.count == IMAGES - 1
    sides = [[each[: IMAGES - 1] for each in columns(found, found)] for found in (ours, theirs)]
    check(row, functools.partial(score_of, "mean_error"), *sides)


def cut(one, rows, names):
    return Answers(
        benchmark=one.benchmark,
        condition=one.condition,
        settings=one.settings,
        ids=one.ids[rows],
        labels=one.labels[rows],
        predictions=one.predictions[rows],
        confidences=one.confidences[rows],
        right=one.right[rows],
        names=names[rows],
    )


@pytest.mark.parametrize(
    ("benchmark", "perturbations", "mean"),
    [
        ("imagenet-p", imagenet_p.PERTURBATIONS, metrics.mean_flip_rate),
        ("cifar-10-p", cifar_p.PERTURBATIONS, mean_flip_probability),
    ],
)
def test_flips_and_distances(benchmark, perturbations, mean):
    def model(seed):
        generator = np.random.default_rng(seed)
        return {
            f"{benchmark}/{name}": (
                answers(
                    generator,
                    benchmark,
                    name,
                    {"kind": "sequence", "perturbation": name, "difficulty": 1},
                    flips=0.2,
                    top5_distance=9.0,
                    zipf_distance=3.0,
                ),
            )
            for name in (*perturbations, "shear")
        }

    ours, theirs = model(0), model(1)
    scores = functools.partial(flip_scores, benchmark=benchmark, perturbations=perturbations, mean=mean)
    found, left_out = compared(scores, ours, theirs)
    assert left_out == []
    assert len(found) == 3 * 11 + 1
    for row in found:
        names = perturbations if row.metric == mean.__name__ else [row.settings["perturbation"]]
        column = {"top5_distance": "top5_distance", "zipf_distance": "zipf_distance"}.get(row.metric, "flips")
        if row.metric == mean.__name__ or names == ["tilt"]:
            sides = [[torch.as_tensor(side[f"{benchmark}/{name}"][0].more[column]) for name in names]
                     for side in (ours, theirs)]  # fmt: skip
            check(row, functools.partial(mean_of, mean if len(names) > 1 else None, names), *sides)


def mean_of(mean, names, *values):
    means = {name: value.double().mean().item() for name, value in zip(names, values, strict=True)}
    return means[names[0]] if mean is None else mean(means)


def test_confidence_and_top_5_of_one_condition():
    def model(seed):
        return {"set": (answers(np.random.default_rng(seed), "set", "clean", {"kind": "clean"}, count=230, top5=1.0),)}

    ours, theirs = model(0), model(1)

    def scores(found):
        (one,) = found["set"]
        yield from confidence_scores(one, {**CALIBRATION, **SILENCE})
        value = float(one.more["top5"].mean())
        settings = {"kind": "score", "interval": {"method": "Clopper-Pearson"}}
        yield Row(benchmark="set", condition="clean", settings=settings, metric="top5_accuracy", value=value, count=230)

    found, left_out = compared(scores, ours, theirs)
    assert left_out == []
    assert [row.metric for row in found] == [*CALIBRATION, *SILENCE, "top5_accuracy"]
    for row in found[:-1]:
        sides = [[torch.from_numpy(side["set"][0].confidences), torch.from_numpy(side["set"][0].right)]
                 for side in (ours, theirs)]  # fmt: skip
        check(row, getattr(metrics, row.metric), *sides)
    sides = [[torch.as_tensor(side["set"][0].more["top5"])] for side in (ours, theirs)]
    check(found[-1], lambda values: values.double().mean().item(), *sides)


def test_a_model_does_not_differ_from_itself():
    ours = found_cells(0, "cifar-10-c")
    (row,), _ = compared(functools.partial(error_scores, benchmark="cifar-10-c"), ours, ours)
    assert (row.difference, row.low, row.high) == (0.0, 0.0, 0.0)
    assert row.a == row.b > 0


def test_the_other_way_round_the_sign_changes():
    ours, theirs = (found_cells(seed, "cifar-10-c") for seed in (0, 1))
    scores = functools.partial(error_scores, benchmark="cifar-10-c")
    ((one,), _), ((other,), _) = compared(scores, ours, theirs), compared(scores, theirs, ours)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=1e-12)


def test_what_cannot_be_compared_is_named():
    ours, theirs = (found_cells(seed, "cifar-10-c") for seed in (0, 1))
    lacking = {part: answers for part, answers in ours.items() if part != "cifar-10-c/snow-5"}

    def score(metric, value=0.5, benchmark="cifar-10-c", condition="15 corruptions", **settings):
        return Row(benchmark=benchmark, condition=condition, settings=settings, metric=metric, value=value, count=2)

    def pairs(found):
        return [Pair(part=part, a=found[part][0], b=theirs[part][0]) for part in found]

    def left_out(a, b, found):
        differences, reasons = score_differences(
            Result(model="a", benchmark="b", rows=a), Result(model="b", benchmark="b", rows=b), pairs(found)
        )
        assert differences == []
        return reasons

    reason = ": it has no paired bootstrap, or was not made of these records"
    rows = tuple(error_scores(ours, benchmark="cifar-10-c"))
    assert left_out(rows, rows, lacking) == [f"cifar-10-c, 15 corruptions, mean error{reason}"]
    wrong = (score("mean_error", 0.123),)
    assert left_out(wrong, wrong, ours) == [f"cifar-10-c, 15 corruptions, mean error{reason}"]
    for metric in ("shape_bias", "mean_flip_rate", "relative_mean_corruption_error", "aurra", "top5_accuracy"):
        assert left_out((score(metric),), (score(metric),), ours) == [
            f"cifar-10-c, 15 corruptions, {metric_name(metric)}{reason}"
        ]
    assert left_out((score("aurra", bins=1),), (score("aurra", bins=2),), ours) == [
        "cifar-10-c, 15 corruptions, AURRA: only in a",
        "cifar-10-c, 15 corruptions, AURRA: only in b",
    ]


def test_what_is_told_beside_a_score_does_not_tell_scores_apart():
    ours, theirs = (found_cells(seed, "cifar-10-c") for seed in (0, 1))

    def scores(found):
        for row in error_scores(found, benchmark="cifar-10-c"):
            details = {"histogram": [row.value]}
            yield Row(
                benchmark=row.benchmark, condition=row.condition, settings={**row.settings, "details": details},
                metric=row.metric, value=row.value, count=row.count,
            )  # fmt: skip

    (row,), left_out = compared(scores, ours, theirs)
    assert left_out == []
    assert row.settings == {"kind": "score"}
