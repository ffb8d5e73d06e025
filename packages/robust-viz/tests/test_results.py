import json
from types import SimpleNamespace

import pytest
from robust_viz.results import read, read_all, read_run


def test_a_run_is_one_result_or_one_per_model(tmp_path, run_folder, make_result):
    assert [record.model for record in read_run(run_folder)] == ["ordinary", "robust"]
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "result.json").write_text(json.dumps(make_result("alone")))
    (record,) = read_run(alone)
    assert record.model == "alone"
    assert record.seed == 0
    assert len(record.digest) == 64
    assert record.file == alone / "result.json"


def test_the_result_of_the_run_itself_comes_before_those_of_its_folders(run_folder, make_result, monkeypatch):
    (run_folder / "result.json").write_text(json.dumps(make_result("robust")))
    (run_folder / "robust").rename(run_folder / "b")
    names = ["robust (run)", "robust (b)", "ordinary"]
    assert [record.model for record in read_run(run_folder)] == names
    monkeypatch.chdir(run_folder)
    assert [record.model for record in read_run(".")] == names


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path, make_result):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result.json").write_text(json.dumps(make_result("resnet18")))
    assert [record.model for record in read_run(tmp_path)] == ["resnet18 (first)", "resnet18 (second)"]


def test_contents_paths_and_objects_give_the_same_rows(tmp_path, make_result):
    content = make_result()
    file = tmp_path / "result.json"
    file.write_text(json.dumps(content))
    rows = [SimpleNamespace(**row, benchmark="digits") for row in content["rows"]]
    result = SimpleNamespace(model="ordinary", rows=rows, seed=0)
    assert read(content).rows == read(file).rows == read(str(file)).rows == read(result).rows
    assert read_all([content]) == read_all(content)
    assert read_all(tmp_path)[0] == read(file)


def test_other_metrics_are_not_accuracies(make_result):
    content = make_result(rows=[make_result.row(0.4, metric="expected_calibration_error", kind="clean")])
    assert len(read(content).rows) == len(content["rows"]) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", r"result.json is not JSON"),
        ('{"format": "robust-res', "is not JSON"),
        ("[1, 2]", "holds a list and not a result"),
        ('{"hello": 1}', '"format" is None, expected "robust-result/1"'),
        ('{"format": "robust-result/9"}', "robust-result/9"),
        ('{"format": "robust-result/1", "benchmark": "digits", "rows": []}', 'has no "model"'),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "d", "rows": 3}', 'has no "rows"'),
        ('{"format": "robust-result/1", "model": "m", "benchmark": "d", "rows": [3]}', 'row 0 of .* has no "settings"'),
        (
            '{"format": "robust-result/1", "model": "m", "benchmark": "d", "rows": '
            '[{"settings": {"kind": "clean"}, "metric": "accuracy", "value": 97.5}]}',
            r"the accuracy 97.5: expected a fraction in \[0, 1\]",
        ),
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": "0.9"}, "\"low\" '0.9'"),
        ({"low": -0.1}, '"low" -0.1'),
        ({"high": True}, '"high" True'),
        ({"high": float("nan")}, '"high" nan'),
        ({"count": -1}, '"count" -1'),
        ({"benchmark": 3}, '"benchmark" 3'),
        ({"settings": {"kind": "attack", "norm": "Linf", "eps": -0.1}}, '"eps" -0.1'),
        ({"settings": {"kind": "attack", "norm": "Linf", "eps": "0.1"}}, "\"eps\" '0.1'"),
        ({"settings": {"kind": "attack", "norm": "Linf", "eps": 10**400}}, '"eps" 1000'),
        ({"settings": {"kind": "corruption", "corruption": "fog", "severity": -3}}, '"severity" -3'),
    ],
)
def test_numbers_out_of_range_are_refused_with_file_and_row(tmp_path, make_result, change, message):
    content = make_result()
    content["rows"][2] |= change
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^row 2 of .*result.json has the ") as caught:
        read_run(tmp_path)
    assert message in str(caught.value)


def test_files_that_exhaust_the_reader_are_refused_by_name(tmp_path):
    file = tmp_path / "result.json"
    for content in ("[" * 200_000 + "]" * 200_000, '{"a":' * 200_000, "1" * 5000):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"result.json is (nested too deeply|not JSON)"):
            read(file)


def test_what_is_not_there_is_told_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run folder at .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no result.json in .*robust-bench run"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no result at .*other.json"):
        read(tmp_path / "other.json")
    with pytest.raises(ValueError, match="no results were given"):
        read_all([])


def test_two_models_of_one_name_are_refused_where_no_folder_tells_them_apart(make_result):
    with pytest.raises(ValueError, match="names of their own, got m, m"):
        read_all([make_result("m"), make_result("m")])
