"""What a run folder keeps is found by the names of its parts."""

import pytest
from robust_bench import Result, evaluate
from robust_bench.conditions import Clean
from robust_bench.kept import kept


def test_parts_may_lie_inside_one_another(tmp_path, model, grey):
    for name in ("plain", "imagenet-c/fog-3", "imagenet-c"):
        evaluate(model, grey, out=tmp_path / "evaluations" / name, shard_size=8)
    found = kept(tmp_path)
    assert list(found) == ["imagenet-c", "imagenet-c/fog-3", "plain"]
    assert all(part.finished for part in found.values())
    assert found["imagenet-c/fog-3"].folder == tmp_path / "evaluations" / "imagenet-c" / "fog-3"


def test_it_has_the_fingerprint_the_rows_and_the_answers(tmp_path, model, grey):
    result = evaluate(model, grey, conditions=(Clean(), Clean()), out=tmp_path / "evaluations" / "grey")
    part = kept(tmp_path)["grey"]
    assert part.rows == result.rows
    assert part.fingerprint["images"] == len(grey)
    assert part.fingerprint["conditions"] == [{"kind": "clean"}] * 2
    assert [int(each.right.sum()) for each in part.answers()] == [row.correct for row in result.rows]
    assert [seen.label for seen in part.records()] == grey.tensors[1].tolist()


def test_a_part_without_records_is_not_finished(tmp_path, model, grey):
    evaluate(model, grey, out=tmp_path / "evaluations" / "grey")
    (tmp_path / "evaluations" / "grey" / "records.jsonl.gz").unlink()
    part = kept(tmp_path)["grey"]
    assert not part.finished
    with pytest.raises(FileNotFoundError, match=r"'grey'.*not finished.*merge"):
        next(part.records())


def test_rows_that_do_not_fit_the_conditions_are_an_error(tmp_path, model, grey):
    evaluate(model, grey, out=tmp_path / "evaluations" / "grey")
    file = tmp_path / "evaluations" / "grey" / "evaluation.json"
    Result(model="m", benchmark="b").save(file)
    with pytest.raises(ValueError, match=r"evaluation\.json has 0 rows for 1 conditions"):
        _ = kept(tmp_path)["grey"].rows


def test_a_folder_without_evaluations_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no evaluations in .*robust-bench run"):
        kept(tmp_path)
