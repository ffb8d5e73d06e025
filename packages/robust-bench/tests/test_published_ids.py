"""Subsets of ImageNet's validation images: the published list, and a balanced one."""

import hashlib

import pytest
from robust_bench.datasets.published_ids import PUBLISHED_FILE, balanced, positions_of, published_ids

NAMES = [
    f"n0{label}/ILSVRC2012_val_{number:08d}.JPEG" for label in range(3) for number in range(label * 4, label * 4 + 4)
]


def test_the_list_is_read_from_the_installed_distribution_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "robustbench"
    (package / PUBLISHED_FILE).parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / PUBLISHED_FILE).write_text(f"{NAMES[5]}\n{NAMES[0]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert published_ids() == (NAMES[5], NAMES[0])


def test_without_the_distribution_or_with_a_bad_list_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="--ids FILE, or take imagenet-autoattack-balanced"):
        published_ids()
    with pytest.raises(FileNotFoundError, match=r"no list of images .*none\.txt"):
        published_ids(tmp_path / "none.txt")
    (tmp_path / "ids.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no image"):
        published_ids(tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text(f"{NAMES[0]}\n{NAMES[1]}\n{NAMES[0]}\n")
    with pytest.raises(ValueError, match=r"00\.JPEG twice"):
        published_ids(tmp_path / "ids.txt")


def test_images_are_found_by_their_names_wherever_they_lie():
    there = [name.replace("JPEG", "png").replace("n0", "val/n0") for name in NAMES]
    assert positions_of([NAMES[7], NAMES[2]], there) == [2, 7]
    with pytest.raises(ValueError, match=r"1 of the 2 listed images are not there, e\.g\. n09/other\.JPEG"):
        positions_of([NAMES[0], "n09/other.JPEG"], there)


def test_the_balanced_subset_has_as_many_of_every_class_in_any_order():
    labels = [int(name[2]) for name in NAMES]
    found = balanced(NAMES, labels, 2)
    assert [labels[place] for place in found] == [0, 0, 1, 1, 2, 2]
    for label in range(3):
        digests = {name: hashlib.sha256(name[3:-5].removeprefix("/").encode()).hexdigest() for name in NAMES}
        mine = sorted((name for name, its in zip(NAMES, labels, strict=True) if its == label), key=digests.get)
        assert {NAMES[place] for place in found if labels[place] == label} == set(mine[:2])
    turned = balanced(NAMES[::-1], labels[::-1], 2)
    assert {NAMES[::-1][place] for place in turned} == {NAMES[place] for place in found}
    assert balanced(NAMES, labels, 9) == list(range(12))
