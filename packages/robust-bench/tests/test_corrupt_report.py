"""What a corrupted copy says of itself, and results of it."""

import json

import pytest
from robust_bench import corrupt_report
from robust_bench.corrupt_report import ABOUT, KEPT, add_call, generated, known, lacking, write_about

MADE = {
    "preset": "imagenet", "variant": "imagenet_c", "seed": 4, "frost": "procedural-v1", "jpeg85": True,
    "data": {"path": "images", "preprocessing": {"steps": "Resize(256, bilinear), CenterCrop(224)"}},
}  # fmt: skip
CALL = {"device": "cpu", "command": {"seed": 4}}
CELLS = [("fog", 1), ("fog", 5), ("snow", 1)]


def test_a_result_says_how_the_files_were_made(tmp_path):
    add_call(tmp_path, CELLS, CALL, MADE)
    found = generated(tmp_path, CELLS[:1])["generated"]
    assert found.pop("by").startswith("robust-bench 0.")
    assert found == {
        "preset": "imagenet", "variant": "imagenet_c", "seed": 4, "frost": "procedural-v1", "jpeg85": True,
        "clean": "Resize(256, bilinear), CenterCrop(224)",
    }  # fmt: skip


def test_nothing_is_said_of_published_files(tmp_path):
    assert generated(tmp_path, CELLS) == {}
    assert known(tmp_path) is None
    assert lacking(tmp_path, CELLS) == CELLS


def test_what_is_added_stands_beside_what_was_there(tmp_path):
    add_call(tmp_path, CELLS, CALL, MADE)
    add_call(tmp_path, [("fog", 3), ("spatter", 2)], CALL, MADE)
    assert known(tmp_path).corruptions == {"fog": [1, 3, 5], "snow": [1], "spatter": [2]}
    assert lacking(tmp_path, [("fog", 3), ("fog", 4), ("frost", 1)]) == [("fog", 4), ("frost", 1)]


def test_a_copy_that_is_not_complete_is_not_evaluated(tmp_path):
    (tmp_path / KEPT).mkdir()
    with pytest.raises(ValueError, match=r"fog at severity 1 is not complete .* `robust-bench corrupt`"):
        generated(tmp_path, CELLS)
    add_call(tmp_path, CELLS[:2], CALL, MADE)
    with pytest.raises(ValueError, match="snow at severity 1 is not complete"):
        generated(tmp_path, CELLS)
    assert generated(tmp_path, CELLS[:2])


def test_a_copy_of_the_files_without_the_hidden_folder_is_not_taken_for_published(tmp_path):
    write_about(tmp_path, MADE)
    assert not (tmp_path / KEPT).exists()
    assert known(tmp_path).corruptions == {}
    with pytest.raises(ValueError, match="fog at severity 1 is not complete"):
        generated(tmp_path, CELLS)


def test_calls_stand_one_after_another(tmp_path):
    add_call(tmp_path, CELLS, CALL, MADE)
    add_call(tmp_path, [("fog", 3)], {"device": "cuda:0", "command": {"seed": 5}}, MADE)
    first, second = json.loads((tmp_path / ABOUT).read_text(encoding="utf-8"))["commands"]
    assert first["created"] <= second["created"]
    assert first == CALL | {"created": first["created"], "cells": {"fog": [1, 5], "snow": [1]}}
    assert (second["device"], second["command"], second["cells"]) == ("cuda:0", {"seed": 5}, {"fog": [3]})


def test_of_two_calls_that_finish_at_once_none_is_lost(tmp_path, monkeypatch):
    """The other call reads and writes between the reading and the writing of this one."""
    write = corrupt_report.write_durably

    def late(file, content):
        if file.name == ABOUT:
            monkeypatch.undo()
            add_call(tmp_path, [("frost", 2)], CALL, MADE)
        return write(file, content)

    monkeypatch.setattr(corrupt_report, "write_durably", late)
    add_call(tmp_path, CELLS, CALL, MADE)
    assert known(tmp_path).corruptions == {"fog": [1, 5], "snow": [1], "frost": [2]}


@pytest.mark.parametrize("change", ['{"cells": 1}', "{}", '{"cells"', "[]"])
def test_a_damaged_file_of_a_call_is_named(tmp_path, change):
    add_call(tmp_path, CELLS, CALL, MADE)
    (file,) = (tmp_path / KEPT / "calls").iterdir()
    file.write_text(change, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .*: remove it"):
        add_call(tmp_path, CELLS, CALL, MADE)


@pytest.mark.parametrize(
    "change", [{"format": "robust-corrupt/9"}, {"corruptions": [1]}, {"corruptions": {"fog": 1}}, {"data": None}, None]
)
def test_a_damaged_file_is_named(tmp_path, change):
    add_call(tmp_path, CELLS, CALL, MADE)
    file = tmp_path / ABOUT
    text = file.read_text(encoding="utf-8")
    file.write_text(text[:-9] if change is None else json.dumps(json.loads(text) | change), encoding="utf-8")
    for read in (known, lambda path: generated(path, CELLS), lambda path: lacking(path, CELLS)):
        with pytest.raises(ValueError, match=r"corrupt\.json is damaged"):
            read(tmp_path)
