"""Class maps: the two forms of the file, and what is refused."""

import hashlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_bench.datasets.class_map import ClassMap, read_class_map

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("map") / "classes.txt"


def read(file, text):
    file.write_text(text, encoding="utf-8")
    return read_class_map(file)


@settings(max_examples=30)
@given(st.dictionaries(WORDS, st.integers(0, 2000), min_size=1))
def test_names_and_labels_come_back(file, labels):
    for between in ("\t", " ", "   "):
        found = read(file, "\n".join(f"{name}{between}{label}" for name, label in labels.items()) + "\n")
        assert dict(found.labels) == labels
        assert found.num_classes == max(labels.values()) + 1


@settings(max_examples=30)
@given(st.lists(WORDS, min_size=1, unique=True))
def test_names_alone_are_numbered_by_their_lines(file, names):
    found = read(file, "\n".join(names))
    assert [found.label(name, of="x") for name in names] == list(range(len(names)))
    assert found.num_classes == len(names)


def test_a_name_with_spaces_takes_a_tab(file):
    assert read(file, "great white shark\t2\nBoeing 747\t0\n").labels == {"great white shark": 2, "Boeing 747": 0}


def test_names_that_end_in_numbers_are_names(file):
    """The cars of Stanford: a year is no label."""
    assert read(file, "Audi TTS Coupe 2012\nBMW M3 Coupe 2012\n").labels == {
        "Audi TTS Coupe 2012": 0,
        "BMW M3 Coupe 2012": 1,
    }


def test_both_forms_in_one_file_are_refused_with_a_line_of_each(file):
    with pytest.raises(ValueError, match=r"line 2 of .*'Boeing 747', reads as a name and a label, line 1, 'A300'"):
        read(file, "A300\nBoeing 747\n")


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_part_of_names(file):
    file.write_bytes("﻿cat\r\ndog\r\n\r\n".encode())
    assert read_class_map(file).labels == {"cat": 0, "dog": 1}


def test_several_names_may_share_a_label_and_labels_may_be_missing(file):
    found = read(file, "tabby 281\nsiamese 281\nbeagle 162\n")
    assert found.num_classes == 282
    assert found.label("tabby", of="a") == found.label("siamese", of="b") == 281


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "names no class"),
        ("\n \n", "names no class"),
        ("cat\n\ndog\n", "line 2 .* no class name"),
        ("cat\ndog\ncat\n", "line 3 .*'cat' for the second time"),
        ("cat 1\ncat 2\n", "line 2 .*'cat' for the second time"),
        ("cat -1\n", "count from 0, but .*'cat' the label -1"),
    ],
)
def test_errors_name_the_line(file, text, word):
    with pytest.raises(ValueError, match=word):
        read(file, text)


def test_an_unknown_class_is_an_error_that_says_whose_it_is(file):
    with pytest.raises(
        ValueError, match=r"the class 'wolf' of data/wolf is not in the class map .*classes\.txt.*'cat'"
    ):
        read(file, "cat\ndog\n").label("wolf", of="data/wolf")


def test_pickles_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was read",))

    for name in ("map.pkl", "map.txt"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match="is a pickle"):
            read_class_map(tmp_path / name)


def test_other_bytes_and_missing_files_are_errors_with_the_path(tmp_path):
    (tmp_path / "map.txt").write_bytes(b"\xff\xfec\x00")
    with pytest.raises(ValueError, match=r"map\.txt is no UTF-8"):
        read_class_map(tmp_path / "map.txt")
    with pytest.raises(FileNotFoundError, match=r"no class map .*nowhere"):
        read_class_map(tmp_path / "nowhere")


def test_the_checksum_is_that_of_the_file(file):
    assert read(file, "cat\ndog\n").sha256 == hashlib.sha256(b"cat\ndog\n").hexdigest()


def test_a_map_can_be_made_without_a_file():
    assert ClassMap(labels={"cat": 3}).num_classes == 4
    with pytest.raises(ValueError, match="names no class"):
        ClassMap(labels={})
