"""A comparison prints signs, p values and what is odd, and its file gives an equal one back."""

import dataclasses
import json

import pytest
from robust_bench.comparison import AccuracyDifference, Comparison, ScoreDifference

ACCURACY = AccuracyDifference(
    part="digits",
    benchmark="digits",
    condition="clean",
    settings={"kind": "clean"},
    count=450,
    a=0.9,
    b=0.875,
    difference=0.025,
    low=-0.0026,
    high=0.0534,
    only_a=30,
    only_b=19,
    p_value=0.15,
    adjusted_p_value=0.3,
)
ATTACKED = dataclasses.replace(
    ACCURACY, part="digits-pgd", condition="PGD", settings={"eps": [0.1, None]}, p_value=1e-9, adjusted_p_value=2e-9
)
SCORE = ScoreDifference(
    benchmark="set-c",
    condition="15 corruptions",
    settings={"kind": "score"},
    metric="mean_corruption_error",
    unit="fraction",
    count=50_000,
    a=0.767,
    b=0.642,
    difference=0.125,
    low=0.119,
    high=0.131,
    resamples=1000,
    seed=0,
)
DISTANCE = dataclasses.replace(
    SCORE,
    condition="tilt",
    metric="top5_distance",
    unit="distance",
    a=2.5,
    b=3.0,
    difference=-0.5,
    low=-0.75,
    high=0.25,
)
WHOLE = Comparison(
    a="[bold]x[/bold]",
    b="other",
    accuracies=(ACCURACY, ATTACKED),
    scores=(SCORE, DISTANCE),
    left_out=("imagenet-a: only in a",),
    warnings=("the runs have the seeds 0 and 1",),
)


def lines(comparison):
    return [" ".join(line.split()) for line in str(comparison).splitlines()]


def test_it_prints_one_line_for_each_difference():
    found = lines(WHOLE)
    assert "condition a: [bold]x[/bold] b: other a − b only a only b p p (Holm) images" in found
    assert "clean 90.0 87.5 +2.5 (-0.3 to +5.3) 30 19 0.15 0.3 450" in found
    assert "PGD 90.0 87.5 +2.5 (-0.3 to +5.3) 30 19 < 0.0001 < 0.0001 450" in found
    assert "set-c, 15 corruptions: mCE, % 76.7 64.2 +12.5 (+11.9 to +13.1) 50000" in found
    assert "set-c, tilt: top-5 distance, distance 2.5 3 -0.5 (-0.75 to +0.25) 50000" in found


def test_it_says_how_and_what_is_odd():
    words = " ".join(lines(WHOLE))
    assert "adjusted for the number of accuracies in this comparison, 2." in words
    assert "paired bootstrap over images, 1000 resamples, seed 0." in words
    assert "Warning: the runs have the seeds 0 and 1" in words
    assert "Left out: imagenet-a: only in a" in words
    assert "bootstrap" not in str(dataclasses.replace(WHOLE, scores=()))


def test_every_benchmark_has_a_table_of_its_own():
    other = dataclasses.replace(ATTACKED, benchmark="folder")
    titles = [line for line in lines(dataclasses.replace(WHOLE, accuracies=(ACCURACY, other))) if "accuracy, %" in line]
    assert titles == [f"{name}: accuracy, % (95 % interval of the difference)" for name in ("digits", "folder")]


def test_json_gives_an_equal_comparison_back(tmp_path):
    assert Comparison.from_json(WHOLE.to_json()) == WHOLE
    assert Comparison.load(WHOLE.save(tmp_path / "deep" / "comparison.json")) == WHOLE
    assert json.loads(WHOLE.to_json())["accuracies"][1]["settings"] == {"eps": [0.1, None]}


def test_what_json_cannot_hold_is_an_error():
    odd = dataclasses.replace(WHOLE, accuracies=(dataclasses.replace(ACCURACY, low=float("nan")),))
    with pytest.raises(ValueError, match=r"accuracies.*low.*finite"):
        odd.to_json()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not complete JSON"),
        ("[" * 100_000, "not complete JSON"),
        ("[]", "not a comparison"),
        ('{"format": "robust-result/1"}', "not a comparison"),
        ('{"format": "robust-comparison/2"}', "robust-comparison/2"),
        ('{"format": "robust-comparison/1"}', "fields: 'a'"),
        ('{"format": "robust-comparison/1", "a": "", "b": "", "accuracies": [{}]}', "fields: .*part"),
        ('{"format": "robust-comparison/1", "a": "", "b": "", "accuracies": [3]}', "fields"),
    ],
)
def test_a_foreign_file_is_an_error_with_its_path(tmp_path, text, word):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"other\.json.*{word}"):
        Comparison.load(path)


def test_a_missing_file_is_an_error_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        Comparison.load(tmp_path / "none.json")
