"""ImageNet's classes by the names of folders."""

import hashlib
import pkgutil

import pytest
from robust_bench.datasets.imagenet_classes import (
    IMAGENET,
    IMAGENET_A,
    IMAGENET_O,
    IMAGENET_R,
    ClassSet,
    imagenet_indices,
    imagenet_wnids,
    numbered_fit,
    numbered_labels,
)


def digest(names):
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def folders(path, names):
    for name in names:
        (path / name).mkdir()
    return path


def test_the_thousand_are_those_of_the_published_checksum():
    wnids = imagenet_wnids()
    assert (len(wnids), digest(wnids)) == (1000, IMAGENET.sha256)
    assert list(wnids) == sorted(wnids)
    assert imagenet_indices(["n01440764", "n02129604", "n15075141"]) == (0, 292, 999)  # tench, tiger, toilet tissue


@pytest.mark.parametrize(("classes", "file"), [(IMAGENET_A, "imagenet_a"), (IMAGENET_R, "imagenet_r")])
def test_the_checksums_of_two_sets_agree_with_timms_lists(classes, file):
    names = pkgutil.get_data("timm.data", f"_info/{file}_synsets.txt").decode().split()
    assert (len(names), digest(names)) == (classes.count, classes.sha256)
    indices = pkgutil.get_data("timm.data", f"_info/{file}_indices.txt").decode().split()
    assert list(imagenet_indices(sorted(names))) == sorted(map(int, indices))


def test_the_three_sets_differ():
    assert len({each.sha256 for each in (IMAGENET, IMAGENET_A, IMAGENET_O, IMAGENET_R)}) == 4


def test_a_strange_wnid_has_no_index():
    with pytest.raises(ValueError, match="n00000001 is not among the 1000"):
        imagenet_indices(["n01440764", "n00000001"])


SOME = ("n02129604", "n01440764", "n15075141")
SMALL = ClassSet(name="ImageNet-S", count=3, sha256=digest(SOME))


def test_labels_are_ranks_within_the_set(tmp_path):
    labels = SMALL.labels(folders(tmp_path, SOME))
    assert labels == {"n01440764": 0, "n02129604": 1, "n15075141": 2}
    assert SMALL.fits(tmp_path)


def test_an_incomplete_set_whose_names_are_unknown_tells_how_many_are_there(tmp_path):
    folders(tmp_path, SOME[:2])
    with pytest.raises(ValueError, match="3 class folders of ImageNet-S: found 2; the checksum of their names"):
        SMALL.labels(tmp_path)
    assert not SMALL.fits(tmp_path)


def test_a_folder_that_is_no_class_of_imagenet_is_named(tmp_path):
    folders(tmp_path, [*SOME, "cat", "dog", "emu", "fox"])
    with pytest.raises(ValueError, match="cat, dog, emu and 1 more are not among them"):
        SMALL.labels(tmp_path)


def test_what_complete_imagenet_lacks_is_named(tmp_path):
    folders(tmp_path, imagenet_wnids()[2:])
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"found 999; n01440764, n01443537 are missing; train is not among them"):
        IMAGENET.labels(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SMALL.labels(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["{}", "{:04d}"], ids=["unpadded", "padded"])
def test_numbered_folders_have_their_number_as_label(tmp_path, name):
    labels = numbered_labels(folders(tmp_path, [name.format(number) for number in range(120)]), 120)
    assert labels == {name.format(number): number for number in range(120)}
    assert numbered_fit(tmp_path, 120)
    assert not numbered_fit(tmp_path, 121)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "2"], "found 2; 0001, 0003 are missing"),
        (["0", "1", "2", "3", "4"], "4 is not among them"),
        (["0", "1", "2", "3", "x"], "x is not among them"),
        (["0", "1", "2", "3", "03"], "03, 3 are the same numbers"),
        (["0", "1", "2", "²"], "0003 is missing; ² is not among them"),
    ],
)
def test_other_numbers_are_refused_by_name(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        numbered_labels(folders(tmp_path, names), 4)
