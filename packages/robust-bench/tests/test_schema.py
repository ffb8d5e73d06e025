"""The schema says what the reader checks: both accept and refuse the same documents."""

import copy
import dataclasses
import json

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from robust_bench import Result, Row, evaluate
from robust_bench.result import FORMAT
from robust_bench.schema import schema

VALIDATOR = Draft202012Validator(schema())
ROWS = (
    Row.accuracy(
        benchmark="digits", condition="clean", settings={"kind": "clean"}, correct=441, count=450, seconds=0.5
    ),
    Row(benchmark="digits", condition="all", settings={"kind": "score"}, metric="mFR", value=1.5, count=450),
    Row(benchmark="b", condition="c", metric="loss", unit="nats", value=-2.5, low=-3, high=-2, count=7),
)
WHOLE = json.loads(
    Result(
        model="m",
        benchmark="digits",
        seed=3,
        rows=ROWS,
        versions={"torch": "2.6"},
        created="2026-01-31T12:00:00Z",
        settings={"device": "cpu", "eps": [0.1, None]},
    ).to_json()
)
NUMBERS = (0, 1, -1, 450, 451, 0.5, -0.5, 2.5, 1.0, 1e308, -1e308, 10**400, -(10**400))
TEXTS = ("", "accuracy", "loss", "fraction", FORMAT, "robust-result/2")
VALUES = st.sampled_from([None, True, False, *NUMBERS, *TEXTS, [], {}, [{}], {"a": 1}])
INTEGERS = ("seed", "correct", "count")


@st.composite
def documents(draw):
    """A result with up to four fields removed, replaced or added."""
    document = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(0, 4))):
        rows = document.get("rows")
        targets = [document, *(row for row in rows if isinstance(row, dict))] if isinstance(rows, list) else [document]
        target = draw(st.sampled_from(targets))
        names = [*WHOLE, *WHOLE["rows"][0], "colour"] if draw(st.integers(0, 9)) == 0 else [*target]
        name = draw(st.sampled_from(names)) if names else "colour"
        if draw(st.booleans()):
            target.pop(name, None)
        else:
            target[name] = draw(VALUES)
    return document


def beyond_a_schema(document):
    """What the schema's comment lists: how numbers compare, and that integers have no fraction."""
    for row in document["rows"]:
        low, high = row.get("low"), row.get("high")
        if low is not None and low > high:
            return False
        if row.get("metric", "accuracy") == "accuracy" and not (
            low <= row["value"] <= high and row["correct"] <= row["count"]
        ):
            return False
    return not any(type(each.get(name)) is float for each in (document, *document["rows"]) for name in INTEGERS)


def reads(document):
    try:
        Result.from_json(json.dumps(document))
    except ValueError:
        return False
    return True


@given(documents())
def test_the_schema_and_the_reader_agree(document):
    fits = VALIDATOR.is_valid(document)
    event(f"the schema accepts: {fits}")
    assert reads(document) == (fits and beyond_a_schema(document))


@pytest.mark.parametrize("row", range(len(ROWS)))
@pytest.mark.parametrize("name", [*(entry.name for entry in dataclasses.fields(Row)), "colour"])
@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 1.5, 2, 500, "accuracy", [], {}, 10**400, -(10**400), ...], ids=repr
)
def test_they_agree_on_every_field_of_a_row(row, name, value):
    document = copy.deepcopy(WHOLE)
    if value is ...:
        document["rows"][row].pop(name, None)
    else:
        document["rows"][row][name] = value
    assert reads(document) == (VALIDATOR.is_valid(document) and beyond_a_schema(document))


@pytest.mark.parametrize("name", [*WHOLE, "colour"])
@pytest.mark.parametrize("value", [None, True, 0, 1.5, "x", [], {}, [1], ...], ids=repr)
def test_they_agree_on_every_field_of_a_result(name, value):
    document = copy.deepcopy(WHOLE)
    if value is ...:
        document.pop(name, None)
    else:
        document[name] = value
    assert reads(document) == (VALIDATOR.is_valid(document) and beyond_a_schema(document))


@pytest.mark.parametrize("document", [None, [], "robust-result/1", 1, [WHOLE]], ids=repr)
def test_they_agree_that_a_document_is_an_object(document):
    assert not VALIDATOR.is_valid(document)
    assert not reads(document)


@pytest.mark.parametrize("name", ["value", "low", "high"])
@pytest.mark.parametrize("number", [-0.5, 1.5, None])
def test_an_accuracy_outside_of_fractions_is_refused_by_the_schema_alone(name, number):
    document = copy.deepcopy(WHOLE)
    document["rows"][0][name] = number
    assert not VALIDATOR.is_valid(document)


def test_the_schema_is_one_and_names_its_version():
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["title"] == schema()["properties"]["format"]["const"] == FORMAT


@pytest.mark.parametrize(("kind", "found"), [(Result, schema()), (Row, schema()["$defs"]["row"])])
def test_every_field_is_described_with_its_default(kind, found):
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    own = {name: about for name, about in found["properties"].items() if name != "format"}
    assert own.keys() == fields.keys()
    assert all(about["description"] for about in own.values())
    for name, entry in fields.items():
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        if default is dataclasses.MISSING or name == "rows":  # a file without rows was cut off
            assert name in found["required"]
        else:
            assert own[name]["default"] == default


def test_results_of_evaluations_fit(result, model, grey):
    for each in (result, evaluate(model, grey), evaluate(lambda images: images.mean((2, 3)).repeat(1, 10), "digits")):
        VALIDATOR.validate(json.loads(each.to_json()))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused_inside_settings_too(number):
    text = json.dumps(WHOLE).replace('"eps": [0.1', f'"eps": [{number}')
    assert number in text
    with pytest.raises(ValueError, match="finite"):
        Result.from_json(text)
