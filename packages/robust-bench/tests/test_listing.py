"""Files in class folders."""

import hashlib
import pickle

import pytest
from robust_bench.datasets.listing import Listing, subfolders


@pytest.fixture
def root(tmp_path):
    """Three class folders whose labels are not in the order of their names, and things that are no images."""
    for folder, files in {"b": ["2.png", "10.png"], "a": ["x.PNG"], "c": ["y.png"]}.items():
        (tmp_path / folder).mkdir()
        for number, file in enumerate(files):
            (tmp_path / folder / file).write_bytes(b"." * (number + 1))
    (tmp_path / "a" / ".hidden.png").touch()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").touch()
    return tmp_path


def test_files_come_in_the_order_of_labels_then_names(root):
    listing = Listing(path=root, labels={"a": 7, "b": 3, "c": 9}, suffixes=(".png",))
    assert [listing.name(index) for index in range(len(listing))] == ["b/10.png", "b/2.png", "a/x.PNG", "c/y.png"]
    assert [listing.label(index) for index in range(len(listing))] == [3, 3, 7, 9]
    assert listing.file(2) == root / "a" / "x.PNG"
    expected = b"b/10.png\t2\nb/2.png\t1\na/x.PNG\t1\nc/y.png\t1\n"
    assert listing.digest == hashlib.sha256(expected).hexdigest()


def test_folders_without_a_label_are_not_looked_at(root):
    assert len(Listing(path=root, labels={"b": 0}, suffixes=(".png",))) == 2


def test_class_folders_are_neither_hidden_nor_files(root):
    assert subfolders(root) == ("a", "b", "c")


def test_two_folders_may_share_a_label(root):
    listing = Listing(path=root, labels={"c": 1, "a": 1}, suffixes=(".png",))
    assert [listing.name(index) for index in range(2)] == ["a/x.PNG", "c/y.png"]
    assert [listing.label(index) for index in range(2)] == [1, 1]


def test_equal_names_in_several_folders_are_kept_once(root):
    one, other = (Listing(path=root, labels={"b": 0}, suffixes=(".png",)) for _ in range(2))
    assert one.name(0) is other.name(0)


def test_nothing_is_listed_before_it_is_needed(root, monkeypatch):
    def fail(path):
        raise AssertionError(f"listed {path}")

    with monkeypatch.context() as patched:
        patched.setattr("os.scandir", fail)
        listing = Listing(path=root, labels={"a": 0}, suffixes=(".png",))
    assert len(listing) == 1


def test_another_process_gets_the_same_files(root):
    listing = Listing(path=root, labels={"a": 0, "b": 1}, suffixes=(".png",))
    copy = pickle.loads(pickle.dumps(listing))
    assert (copy.digest, len(copy)) == (listing.digest, 3)


def test_an_empty_class_is_an_error_that_names_it(root):
    (root / "d").mkdir()
    with pytest.raises(ValueError, match=r"no \.png files in the class folder .*d: was the data set unpacked"):
        len(Listing(path=root, labels={"a": 0, "d": 1}, suffixes=(".png",)))


def test_a_missing_class_is_an_error_that_names_it(root):
    with pytest.raises(FileNotFoundError, match=r"no class folder .*e: was"):
        len(Listing(path=root, labels={"e": 1}, suffixes=(".png",)))
