"""Two runs side by side, image by image: known counts, laws, and every way in which runs cannot be compared."""

import json

import numpy as np
import pytest
import torch
from robust_bench import Result, Row, metrics
from robust_bench.benchmarks import Sweep
from robust_bench.compare import compare
from robust_bench.datasets import digits
from robust_bench.records import Records
from robust_bench.runner import Run
from robust_bench.shards import EVALUATION, Shards
from robust_models import create_model
from scipy.stats import binomtest

CLEAN = {"kind": "clean"}
MODEL = {"spec": "small_cnn_8", "weights": None, "sha256": None, "pretrained": False}


def keep(run, right, *, part="set", benchmark=None, confidences=0.5, more=None, labels=0, names=None, skip=(), **also):
    """A part as the engine leaves it: for every condition (label, settings as JSON) who is right."""
    columns = {key: torch.as_tensor(np.asarray(column)) for key, column in right.items()}
    images = len(next(iter(columns.values())))
    conditions = [json.loads(known) for _, known in right]
    data = {"dataset": "d", "preprocessing": also.pop("preprocessing", "none"), **also.pop("data", {})}
    fingerprint = {"data": data, "data_sha256": "d", "model_sha256": "m", "seed": 0, "conditions": conditions}
    shards = Shards(folder=run / "evaluations" / part, fingerprint=fingerprint | also, images=images, size=images)
    ids = [id_ for id_ in range(images) if id_ not in skip]
    records = [
        Records(
            predictions=torch.zeros(len(ids), dtype=torch.int64),
            confidences=torch.as_tensor(confidences, dtype=torch.float32).expand(images)[ids],
            right=column[ids],
            seconds=0.0,
            more={name: torch.as_tensor(values)[ids] for name, values in (more or {}).items()},
        )
        for column in columns.values()
    ]
    shards.write(
        0,
        ids,
        torch.as_tensor(labels).expand(images)[ids].tolist(),
        records,
        names=None if names is None else [names[id_] for id_ in ids],
        damaged=dict.fromkeys(skip, "cannot read it"),
    )
    shards.merge()
    rows = tuple(
        Row.accuracy(
            benchmark=benchmark or part, condition=label, settings=json.loads(known),
            correct=int(column[ids].sum()), count=len(ids), seconds=0.0,
        )
        for (label, known), column in columns.items()
    )  # fmt: skip
    Result(model="m", benchmark="b", rows=rows).save(shards.folder / EVALUATION)


def finish(run, *rows, name=None, model=MODEL):
    """The result of a run, of which only the scores are read."""
    settings = {"parts": ["set", "one"]} | ({} if model is None else {"model": model})
    Result(model=name or run.name, benchmark="b", rows=rows, settings=settings).save(run / "result.json")
    return run


def clean(right):
    return {("clean", json.dumps(CLEAN)): right}


def split(both, only_a, only_b, none):
    """Who is right, with these numbers of images."""
    a = [True] * (both + only_a) + [False] * (only_b + none)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * none
    order = np.random.default_rng(0).permutation(len(a))
    return np.array(a)[order], np.array(b)[order]


def two(tmp_path, a, b, **settings):
    """Two runs with one part of clean images."""
    for name, right in (("a", a), ("b", b)):
        keep(tmp_path / name, clean(right), **settings)
    return finish(tmp_path / "a"), finish(tmp_path / "b")


@pytest.mark.parametrize("counts", [(25, 15, 5, 55), (0, 0, 7, 1), (3, 0, 0, 4), (0, 12, 12, 0), (700, 61, 24, 215)])
def test_counts_and_p_value_are_those_of_the_images(tmp_path, counts):
    both, only_a, only_b, _ = counts
    found = compare(*two(tmp_path, *split(*counts)))
    (row,) = found.accuracies
    total = sum(counts)
    assert (row.part, row.benchmark, row.condition, row.settings) == ("set", "set", "clean", CLEAN)
    assert (row.only_a, row.only_b, row.count) == (only_a, only_b, total)
    assert (row.a, row.b) == ((both + only_a) / total, (both + only_b) / total)
    assert row.difference == pytest.approx(row.a - row.b, abs=1e-12)
    assert row.low <= row.difference <= row.high
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert row.p_value == row.adjusted_p_value == pytest.approx(expected, rel=1e-9)
    assert (found.a, found.b, found.scores, found.left_out, found.warnings) == ("a", "b", (), (), ())


def test_p_values_are_adjusted_over_all_parts_and_conditions(tmp_path):
    labels = [("clean", json.dumps(CLEAN)), ("PGD", '{"kind": "attack", "eps": 0.1}')]
    expected = {}
    for part, splits in (("one", ((5, 8, 1, 6), (5, 9, 0, 6))), ("two/deep", ((1, 15, 4, 0), (2, 3, 3, 12)))):
        sides = [split(*each) for each in splits]
        for number, name in enumerate("ab"):
            keep(tmp_path / name, {key: side[number] for key, side in zip(labels, sides, strict=True)}, part=part)
        for (label, _), each in zip(labels, splits, strict=True):
            expected[part, label] = binomtest(each[1], each[1] + each[2]).pvalue
    found = compare(finish(tmp_path / "a"), finish(tmp_path / "b")).accuracies
    assert {(row.part, row.condition): row.p_value for row in found} == pytest.approx(expected)
    ranked = sorted(found, key=lambda row: row.p_value)
    steps = [(4 - rank) * row.p_value for rank, row in enumerate(ranked)]
    assert [row.adjusted_p_value for row in ranked] == pytest.approx([min(1.0, max(steps[: k + 1])) for k in range(4)])


def test_the_other_way_round_everything_changes_sign(tmp_path):
    a, b = two(tmp_path, *split(20, 9, 3, 8))
    (one,), (other,) = compare(a, b).accuracies, compare(b, a).accuracies
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=1e-9)
    assert (one.only_a, one.p_value) == (other.only_b, other.p_value)


def test_what_only_one_run_has_is_listed(tmp_path):
    right = [True, False, True]
    attack = ("PGD", '{"kind": "attack", "eps": 0.1}')
    other = ("PGD", '{"kind": "attack", "eps": 0.2}')
    keep(tmp_path / "a", clean(right) | {attack: right})
    keep(tmp_path / "b", {other: right} | clean(right))
    keep(tmp_path / "a", clean(right), part="imagenet-c/fog-3")
    keep(tmp_path / "b", clean(right), part="imagenet-c/fog-4")
    for severity in range(3):
        keep(tmp_path / "b", clean(right), part=f"cifar-10-c/fog-{severity}")
    for name in "ab":
        keep(tmp_path / name, clean(right), part="late")
    (tmp_path / "b" / "evaluations" / "late" / "records.jsonl.gz").unlink()
    found = compare(finish(tmp_path / "a"), finish(tmp_path / "b"))
    assert [(row.part, row.condition, row.only_a) for row in found.accuracies] == [("set", "clean", 0)]
    assert sorted(found.left_out) == [
        "3 parts of cifar-10-c: only in b",
        "imagenet-c/fog-3: only in a",
        "imagenet-c/fog-4: only in b",
        "late: not finished in b",
        "set, PGD: only in a",
        "set, PGD: only in b",
    ]


def test_other_answers_are_not_compared(tmp_path):
    for name, answer in (("a", "EntryLevel(mean)"), ("b", "EntryLevel(max)")):
        keep(tmp_path / name, clean([True, False]), part="cue", answer=answer)
        keep(tmp_path / name, clean([True, False]))
    found = compare(finish(tmp_path / "a"), finish(tmp_path / "b"))
    assert [row.part for row in found.accuracies] == ["set"]
    assert found.left_out == ("cue: the answer is EntryLevel(mean) in a and EntryLevel(max) in b",)


def test_nothing_in_common_is_an_error(tmp_path):
    keep(tmp_path / "a", clean([True]), part="one")
    keep(tmp_path / "b", clean([True]), part="two")
    with pytest.raises(ValueError, match=r"no condition in common \(one: only in a; two: only in b\)"):
        compare(finish(tmp_path / "a"), finish(tmp_path / "b"))


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"data": {"dataset": "e"}}, 'dataset is "d" in a, "e" in b'),
        ({"data": {"variant": "generated"}}, 'variant is null in a, "generated" in b'),
        ({"data_sha256": "e"}, 'sha256 is "d" in a, "e" in b'),
        ({"preprocessing": "crop", "data_sha256": "e"}, "no file names tell"),
        ({"right": [True] * 5}, "images is 4 in a, 5 in b"),
        ({"skip": (2,)}, r"b lacks image 2\. Were damaged images skipped"),
        ({"labels": [0, 0, 0, 1]}, "image 3 of 'set' has the label 0 in a, 1 in b"),
    ],
    ids=str,
)
def test_other_data_are_an_error_that_says_what_differs(tmp_path, other, word):
    other = dict(other)
    keep(tmp_path / "a", clean([True] * 4))
    keep(tmp_path / "b", clean(other.pop("right", [True] * 4)), **other)
    with pytest.raises(ValueError, match=f"'set'.*{word}|{word}"):
        compare(finish(tmp_path / "a"), finish(tmp_path / "b"))


def test_models_with_a_preprocessing_of_their_own_are_compared_by_file_names(tmp_path):
    names = ["cat/0.png", "cat/1.png", "dog/0.png"]
    keep(tmp_path / "a", clean([True, True, False]), names=names)
    keep(tmp_path / "b", clean([True, False, False]), names=names, preprocessing="crop", data_sha256="e")
    found = compare(finish(tmp_path / "a"), finish(tmp_path / "b"))
    assert found.accuracies[0].only_a == 1
    assert found.warnings == ("set: each model has a preprocessing of its own",)
    keep(tmp_path / "c", clean([True] * 3), names=[*names[:2], "dog/7.png"], preprocessing="crop", data_sha256="e")
    with pytest.raises(ValueError, match=r"image 2 of 'set' is 'dog/0.png' in a, 'dog/7.png' in b"):
        compare(tmp_path / "a", finish(tmp_path / "c"))


@pytest.mark.parametrize(
    ("change", "warns"),
    [
        ({}, False),
        ({"sha256": "f" * 64, "weights": "epoch-7.pt"}, True),
        ({"pretrained": True}, True),
        ({"spec": "small_cnn_32", "sha256": "f" * 64}, False),
    ],
    ids=str,
)
def test_several_checkpoints_of_one_model_are_a_warning(tmp_path, change, warns):
    a, b = two(tmp_path, [True, False], [False, True])
    found = compare(a, finish(b, model=MODEL | change))
    assert [("small_cnn_8" in text and "checkpoint" in text) for text in found.warnings] == [True] * warns


def test_other_seeds_are_a_warning(tmp_path):
    keep(tmp_path / "a", clean([True, False]))
    keep(tmp_path / "b", clean([True, False]), seed=1)
    (text,) = compare(finish(tmp_path / "a", model=None), finish(tmp_path / "b", model=None)).warnings
    assert "seeds 0 and 1" in text


CELLS = [(name, severity) for name in metrics.ALEXNET_ERRORS for severity in range(1, 6)]


def corrupted(run, seed):
    """A run over the 75 parts of a corruption set, with its mCE; and who is right, (60, 75)."""
    generator = np.random.default_rng(seed)
    right = np.stack([generator.random(60) < 0.8 - 0.1 * seed - 0.05 * severity for _, severity in CELLS], axis=1)
    for column, (name, severity) in zip(right.T, CELLS, strict=True):
        key = (f"{name} {severity}", json.dumps({"kind": "corruption", "corruption": name, "severity": severity}))
        keep(run, {key: column}, part=f"set-c/{name}-{severity}", benchmark="set-c", names=FILES)
    row = Row(
        benchmark="set-c", condition="15 corruptions", settings={"kind": "score", "interval": {"seed": seed}},
        metric="mean_corruption_error", value=mean_corruption_error(torch.from_numpy(right)), count=60,
    )  # fmt: skip
    return finish(run, row), right


FILES = [f"n0/{number}.png" for number in range(60)]


def mean_corruption_error(right):
    wrong = (~right).double().mean(dim=0).reshape(15, 5).tolist()
    return metrics.mean_corruption_error(dict(zip(metrics.ALEXNET_ERRORS, wrong, strict=True)))


def test_scores_of_corruption_sets_get_the_paired_bootstrap(tmp_path):
    (a, ours), (b, theirs) = corrupted(tmp_path / "a", 1), corrupted(tmp_path / "b", 2)
    found = compare(a, b, resamples=100)
    assert len(found.accuracies) == len({row.part for row in found.accuracies}) == 75
    assert found.left_out == ()
    (row,) = found.scores
    slow = metrics.bootstrap(
        [torch.from_numpy(ours), torch.from_numpy(theirs)],
        lambda one, other: mean_corruption_error(one) - mean_corruption_error(other),
        resamples=100,
    )
    assert (row.a, row.b) == pytest.approx([mean_corruption_error(torch.from_numpy(each)) for each in (ours, theirs)])
    assert (row.difference, row.low, row.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-9)
    assert (row.metric, row.unit, row.count) == ("mean_corruption_error", "fraction", 60)
    assert (row.settings, row.resamples, row.seed) == ({"kind": "score"}, 100, 0)


def test_runs_of_two_trained_networks_agree_with_their_results(tmp_path):
    images, labels = digits("train").tensors
    for seed, name in ((0, "a"), (1, "b")):
        torch.manual_seed(seed)
        network = create_model("small_cnn_8")
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for batch in torch.arange(1200).split(100):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
        Run(
            model="small_cnn_8", weights=tmp_path / f"{name}.pt", benchmarks="digits,digits-pgd", out=tmp_path / name,
            device="cpu", attack=Sweep(eps=(0.1, 0.2)[: 2 - seed], steps=2, restarts=1),
        )()  # fmt: skip
    found = compare(tmp_path / "a", tmp_path / "b")
    ours, theirs = (Result.load(tmp_path / name / "result.json") for name in "ab")
    assert [row.condition for row in found.accuracies] == ["clean", "PGD-2, Linf 0.1"]
    assert "digits-pgd, PGD-2, Linf 0.2: only in a" in found.left_out
    for row, mine, other in zip(found.accuracies, ours.rows, theirs.rows, strict=False):
        assert (row.condition, row.settings, row.count) == (mine.condition, mine.settings, 450)
        assert (row.a, row.b) == (mine.value, other.value)
        assert row.only_a - row.only_b == mine.correct - other.correct
        assert 0 < row.only_a + row.only_b < 450
        assert row.p_value == pytest.approx(binomtest(row.only_a, row.only_a + row.only_b).pvalue)
    assert (found.a, found.b) == ("a", "b")
    assert len(found.warnings) == 1


def test_a_run_that_is_not_there_is_an_error(tmp_path):
    keep(tmp_path / "a", clean([True]))
    with pytest.raises(FileNotFoundError, match=r"nothing.result\.json"):
        compare(finish(tmp_path / "a"), tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no evaluations"):
        compare(tmp_path / "a", finish(tmp_path / "empty"))
