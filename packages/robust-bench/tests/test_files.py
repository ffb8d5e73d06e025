"""Durable writing: the old file or the new one, and no litter."""

import os
import time
from pathlib import Path

import pytest
from robust_bench.files import check_folder, remove_abandoned, sha256, write_durably


def test_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert write_durably(path, "one ü\n") == path
    write_durably(path, "two\n")
    assert path.read_text(encoding="utf-8") == "two\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = write_durably(tmp_path / "b.txt", "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os if step == "fsync" else type(path), step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_durably(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.txt"]


def test_text_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(type(tmp_path), "replace", lambda *paths: (order.append("replace"), replace(*paths))[1])
    write_durably(tmp_path / "b.txt", "text")
    assert order[:2] == ["fsync", "replace"]


def test_a_folder_may_be_there_or_become_one_but_not_below_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    for fine in (tmp_path, tmp_path / "a" / "b", Path("a"), Path()):
        check_folder(fine)
    for wrong in (tmp_path / "file", tmp_path / "file" / "a", Path("file") / "a" / "b"):
        with pytest.raises(NotADirectoryError, match="is a file: choose another --out"):
            check_folder(wrong)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_unfinished_file_lies_where_it_is_wanted_and_goes_when_it_is_abandoned(tmp_path):
    seen = []

    def content():
        seen.extend(path.parent.name for path in tmp_path.rglob(".*.tmp"))
        yield b"whole"

    write_durably(tmp_path / "a" / "b", content(), unfinished=tmp_path / "parts")
    assert (seen, (tmp_path / "a" / "b").read_bytes()) == (["parts"], b"whole")
    assert list((tmp_path / "parts").iterdir()) == []
    for name in (".old.1234abcd.tmp", ".new.1234abcd.tmp", "other"):
        (tmp_path / "parts" / name).touch()
    for name in (".old.1234abcd.tmp", "other"):
        os.utime(tmp_path / "parts" / name, (time.time() - 3700,) * 2)
    remove_abandoned(tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [".new.1234abcd.tmp", "other"]


def test_a_file_is_hashed(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file").startswith("ba7816bf8f01cfea")
