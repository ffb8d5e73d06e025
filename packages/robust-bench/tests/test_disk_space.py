"""Room on the disk."""

import shutil
from types import SimpleNamespace

import pytest
from robust_bench.disk_space import check_space


@pytest.mark.parametrize("inside", ["", "new/folder"])
def test_too_little_room_is_refused_with_both_numbers(tmp_path, monkeypatch, inside):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (asked.append(path), SimpleNamespace(free=5_340_000))[1])
    check_space(tmp_path / inside, 5_340_000)
    with pytest.raises(ValueError, match=r"needs about 71\.2 GB and 5\.3 MB are free there: choose another --out"):
        check_space(tmp_path / inside, 71.24e9)
    assert asked == [tmp_path, tmp_path]  # the nearest folder that is there


def test_the_room_is_that_of_the_disk(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, free / 2)
    with pytest.raises(ValueError, match="are free there"):
        check_space(tmp_path, 4 * free + 1e9)
