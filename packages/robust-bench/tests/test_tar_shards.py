"""Finding tar files."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.datasets.tar_shards import expand_braces, find_shards


@given(st.integers(0, 300), st.integers(0, 300), st.booleans())
def test_braces_count_between_their_ends(first, last, padded):
    ends = [f"{end:03d}" if padded else str(end) for end in (first, last)]
    found = expand_braces(f"a-{{{ends[0]}..{ends[1]}}}.tar")
    numbers = [name.removeprefix("a-").removesuffix(".tar") for name in found]
    assert [int(number) for number in numbers] == sorted(
        range(min(first, last), max(first, last) + 1), reverse=last < first
    )
    assert (
        all(len(number) == 3 for number in numbers) if padded else all(number == str(int(number)) for number in numbers)
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("x.tar", ["x.tar"]),
        ("{a,b}.tar", ["a.tar", "b.tar"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{x}-{1,2}", ["{x}-1", "{x}-2"]),
        ("{}", ["{}"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{0..0}", ["0"]),
    ],
)
def test_braces_are_written_out_as_in_bash(pattern, expected):
    assert expand_braces(pattern) == expected


@pytest.fixture
def shards(tmp_path):
    for name in ("val-10.tar", "val-2.tar", "train-1.tar", "sub/val-3.tar", "notes.txt", "._val-2.tar", "a[1]/x.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["train-1.tar", "val-2.tar", "val-10.tar"]),
        ("val-*.tar", ["val-2.tar", "val-10.tar"]),
        ("val-{2,10}.tar", ["val-2.tar", "val-10.tar"]),
        ("{val-10,val-*}.tar", ["val-2.tar", "val-10.tar"]),
        ("*/val-?.tar", ["sub/val-3.tar"]),
        ("train-1.tar", ["train-1.tar"]),
    ],
)
def test_files_are_found_once_in_natural_order(shards, pattern, expected):
    assert names(find_shards(shards, pattern), shards) == expected
    if pattern:
        assert names(find_shards(shards / pattern), shards) == expected
        assert names(find_shards(shards / "sub", f"{shards}/{pattern}"), shards) == expected


def test_a_folder_with_special_signs_in_its_name_is_only_a_folder(shards):
    assert names(find_shards(shards / "a[1]"), shards) == ["a[1]/x.tar"]
    assert names(find_shards(shards / "a[1]", "*.tar"), shards) == ["a[1]/x.tar"]


def test_paths_may_be_relative(shards, monkeypatch):
    monkeypatch.chdir(shards)
    here = type(shards)()
    assert [os.fspath(path) for path in find_shards(here, "val-*.tar")] == ["val-2.tar", "val-10.tar"]
    assert [os.fspath(path) for path in find_shards(here / "sub")] == ["sub/val-3.tar"]


def test_a_missing_shard_is_an_error_with_its_name(shards):
    with pytest.raises(FileNotFoundError, match=r"val-3\.tar: expected shards such as"):
        find_shards(shards, "val-{2..4}.tar")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        find_shards(shards / "nowhere", "*.tar")


def test_compressed_files_are_refused_with_advice(tmp_path):
    (tmp_path / "0.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack compressed ones such as 0\.tar\.gz"):
        find_shards(tmp_path)
    for data, pattern in ((tmp_path, "*"), (tmp_path / "0.tar.gz", "")):
        with pytest.raises(ValueError, match="is compressed"):
            find_shards(data, pattern)
