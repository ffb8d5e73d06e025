"""Results: JSON without loss, files that are whole, errors that name the file."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench import Result, Row

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.builds(
    lambda count, part, **rest: Row.accuracy(count=count, correct=round(part * count), **rest),
    count=st.integers(1, 10**6),
    part=st.floats(0, 1),
    benchmark=TEXT,
    condition=TEXT,
    settings=st.dictionaries(TEXT, JSON, max_size=4),
    seconds=st.floats(0, 1e9),
)
RESULTS = st.builds(
    Result,
    model=TEXT,
    benchmark=TEXT,
    seed=st.integers(),
    rows=st.lists(ROWS, max_size=4).map(tuple),
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    created=TEXT,
    settings=st.dictionaries(TEXT, JSON, max_size=4),
)


@given(RESULTS)
def test_json_gives_an_equal_result_back(result):
    text = result.to_json()
    assert Result.from_json(text) == result
    assert Result.from_json(text).to_json() == text


@pytest.mark.parametrize("name", ["مرحبا", "</script>", 'a"b\\c\n\t\x00', "🤖", "[red]x[/red]", ""])
def test_odd_names_survive_the_file_and_print(result, name, tmp_path):
    odd = dataclasses.replace(result, model=name)
    path = odd.save(tmp_path / "deep" / "result.json")
    assert Result.load(path) == odd
    assert "98.0" in str(odd)


def test_the_file_has_the_documented_fields(result):
    document = json.loads(result.to_json())
    assert document["format"] == "robust-result/1"
    assert {"model", "benchmark", "seed", "versions", "created", "settings", "rows"} <= document.keys()
    row = document["rows"][1]
    assert row["settings"]["kind"] == "attack"
    assert (row["metric"], row["correct"], row["count"]) == ("accuracy", 245, 450)
    assert row["value"] == 245 / 450
    assert row["low"] < row["value"] < row["high"]


def test_tuples_become_lists_so_that_equality_survives(result):
    changed = dataclasses.replace(result, settings={"eps": (0.1, 0.2)})
    assert changed.settings == {"eps": [0.1, 0.2]}
    assert Result.from_json(changed.to_json()) == changed


def test_the_callers_mapping_is_not_kept(result):
    settings = {"a": [1]}
    changed = dataclasses.replace(result, settings=settings)
    settings["a"].append(2)
    assert changed.settings == {"a": [1]}


@pytest.mark.parametrize(
    ("settings", "kind", "word"),
    [
        ({"eps": float("nan")}, ValueError, "eps.*finite"),
        ({"eps": [float("inf")]}, ValueError, "finite"),
        ({"name": "\ud800"}, ValueError, "UTF-8"),
        ({"function": print}, TypeError, "function"),
        ({1: 2}, TypeError, "keys"),
    ],
)
def test_refuses_what_json_cannot_hold(result, settings, kind, word):
    with pytest.raises(kind, match=word):
        dataclasses.replace(result, settings=settings)


def test_a_truncated_file_is_an_error_with_its_path(result, tmp_path):
    path = result.save(tmp_path / "result.json")
    whole = path.read_text(encoding="utf-8")
    for length in range(0, len(whole) - 2, 97):
        path.write_text(whole[:length], encoding="utf-8")
        with pytest.raises(ValueError, match=r"result\.json is not complete JSON"):
            Result.load(path)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[]", "not a result"),
        ('{"format": "robust-figures/1"}', "not a result"),
        ('{"format": "robust-result/2"}', "upgrade"),
        ('{"format": "robust-result/1"}', "fields: no 'rows'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": {}}', "rows must be a list"),
        ('{"format": "robust-result/1", "model": null, "benchmark": "b", "rows": []}', "model must be text"),
        (
            '{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [], "settings": null}',
            "settings must",
        ),
        (
            '{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [], "versions": null}',
            "versions must",
        ),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [], "seed": true}', "seed must"),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [], "seed": NaN}', "seed must"),
        ('{"format": "robust-result/1", "seed": ' + "9" * 5000 + "}", "not complete JSON"),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [{}]}', "fields"),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "b", "rows": [], "colour": 1}', "fields"),
    ],
)
def test_a_foreign_or_newer_file_is_an_error_with_its_path(text, word, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"other\.json.*{word}"):
        Result.load(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"count": 0, "correct": 0}, "count must be at least 1"),
        ({"correct": 451}, "451 of 450"),
        ({"correct": -1}, "-1 of 450"),
        ({"count": 450.0}, "count must be an integer, got float"),
        ({"correct": True}, "correct must be an integer, got bool"),
        ({"value": "0.5"}, "value must be a number, got str"),
        ({"value": None}, "value must be a number, got NoneType"),
        ({"value": 2.0}, "fraction with 0 <= low <= value <= high"),
        ({"value": 2.0, "high": 2.0}, "fraction"),
        ({"value": -1.0, "low": -1.0}, "fraction"),
        ({"low": 1.0}, "low must be at most high"),
        ({"low": None}, "low and high come together"),
        ({"correct": None}, "an accuracy has correct"),
        ({"high": 10**400}, "high must be a number that a float can hold"),
        ({"seconds": -1}, "seconds must be at least 0"),
        ({"settings": None}, "settings must be a mapping"),
        ({"metric": 1}, "metric must be text"),
        ({"benchmark": None}, "benchmark must be text"),
        ({"colour": 1}, "colour"),
    ],
    ids=str,
)
def test_an_impossible_row_is_an_error_with_its_path_and_number(result, change, word, tmp_path):
    document = json.loads(result.to_json())
    document["rows"][2] |= change
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"result\.json, row 3, .*{word}"):
        Result.load(path)


def test_another_metric_may_leave_the_fractions():
    row = Row(benchmark="b", condition="c", metric="loss", value=3, low=-1, high=5.5, correct=1, count=2)
    assert (row.value, row.low, row.high) == (3.0, -1.0, 5.5)


def test_binary_and_missing_files_are_errors_with_their_path(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(b"\x80\x02\xff")
    with pytest.raises(ValueError, match=r"model\.json"):
        Result.load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        Result.load(tmp_path / "none.json")


def test_rows_carry_the_interval():
    row = Row.accuracy(benchmark="b", condition="c", settings={}, correct=0, count=10, seconds=0.0)
    assert (row.value, row.low, round(row.high, 4)) == (0.0, 0.0, 0.3085)


def test_values_cannot_be_assigned(result):
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.model = "other"
