"""Durable writing: the old file or the new one, and no litter."""

import os

import pytest
from robust_bench.files import write_durably


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
