"""Tables of results in files: CSV without loss, Markdown as printed, JSON that reads back."""

import csv
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from robust_bench import Result, Row
from robust_bench.comparison import AccuracyDifference, Comparison
from robust_bench.export import COLUMNS, write_comparison, write_table

TEXT = st.text(max_size=12) | st.sampled_from(['a,"b"', "a\nb", "a\rb", "=1+1", "|", " "])
NUMBER = st.floats(-1e9, 1e9)
ROWS = st.builds(
    lambda ends, **rest: Row(low=min(ends), high=max(ends), **rest),
    benchmark=TEXT,
    condition=TEXT,
    settings=st.dictionaries(TEXT, TEXT | NUMBER | st.none(), max_size=3),
    metric=st.just("loss"),
    unit=TEXT,
    value=NUMBER,
    ends=st.tuples(NUMBER, NUMBER),
    correct=st.none() | st.integers(0, 10),
    count=st.integers(1, 10**9),
    seconds=st.floats(0, 1e9),
)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@given(model=TEXT, rows=st.lists(ROWS, max_size=4))
def test_a_line_of_csv_has_everything_of_a_row(model, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    write_table([Result(model=model, benchmark="b", rows=tuple(rows))], path)
    lines = read(path)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert tuple(line) == COLUMNS
        assert line.pop("model") == model
        assert json.loads(line.pop("settings")) == row.settings
        for name, text in line.items():
            value = getattr(row, name)
            assert text == ("" if value is None else value if isinstance(value, str) else repr(value))


def test_csv_keeps_fractions_and_leaves_unknown_ends_empty(result, tmp_path):
    plain = Row(benchmark="b", condition="c", metric="mFR", value=0.5, count=3)
    other = dataclasses.replace(result, model="other", rows=(plain,))
    lines = read(write_table([result, other], tmp_path / "deep" / "table.csv"))
    assert [line["model"] for line in lines] == ["small_cnn_8"] * len(result.rows) + ["other"]
    assert float(lines[0]["value"]) == 441 / 450
    assert (lines[-1]["low"], lines[-1]["high"], lines[-1]["correct"]) == ("", "", "")


def test_markdown_shows_what_is_printed(result, tmp_path):
    odd = dataclasses.replace(result, model="a|b *c* <i>")
    text = write_table([odd, result], tmp_path / "table.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    cells = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    assert [token.type for token in tokens].count("table_open") == 2  # accuracies, and corruptions by severity
    assert cells.count("a|b *c* <i>") == 2
    assert cells.count("98.0 (96.2–99.1)") == 2
    assert cells[-8:] == ["", "small_cnn_8", "82.2", "66.7", "51.1", "35.6", "20.0", "51.1"]


def test_json_is_a_list_of_result_documents(result, tmp_path):
    other = dataclasses.replace(result, model="other")
    documents = json.loads(write_table([result, other], tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [Result.from_json(json.dumps(each)) for each in documents] == [result, other]


@pytest.mark.parametrize("name", ["table.xlsx", "table", ".csv"])
def test_other_suffixes_are_an_error_and_write_nothing(result, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.csv, \.md or \.json"):
        write_table([result], tmp_path / name)
    with pytest.raises(ValueError, match=r"\.json or \.md"):
        write_comparison(Comparison(a="a", b="b", accuracies=()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_results_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no result"):
        write_table([], tmp_path / "table.csv")


def test_a_comparison_is_written_as_it_prints(tmp_path):
    row = AccuracyDifference(
        part="p", benchmark="b|c", condition="clean", settings={}, count=100, a=0.5, b=0.25, difference=0.25, low=0.125,
        high=0.375, only_a=30, only_b=5, p_value=0.00003, adjusted_p_value=0.00003,
    )  # fmt: skip
    found = Comparison(a="one", b="two", accuracies=(row,), left_out=("x: only in a",), warnings=("<odd>",))
    text = write_comparison(found, tmp_path / "c.md").read_text(encoding="utf-8")
    assert "| clean | 50.0 | 25.0 | +25.0 (+12.5 to +37.5) | 30 | 5 | &lt; 0.0001 | &lt; 0.0001 | 100 |" in text
    assert "**b\\|c: accuracy" in text
    assert "Warning: &lt;odd&gt;\n" in text
    assert Comparison.load(write_comparison(found, tmp_path / "c.json")) == found
