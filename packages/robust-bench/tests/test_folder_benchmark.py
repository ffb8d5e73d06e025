"""The benchmarks of a user's own images, from options to results."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench import benchmarks, evaluate
from robust_bench.benchmarks.entry import is_there
from robust_bench.benchmarks.folder import FAMILY
from robust_bench.datasets.tar_file import tar_members
from robust_bench.preprocess import Preprocess
from robust_bench.records import read_records
from robust_bench.shards import RECORDS
from torch import nn

SMALL = Preprocess(size=8, crop_share=1.0)


@pytest.fixture
def root(tmp_path):
    """Four images of each of two colours; the green ones are class 5 of the model, the red ones class 2."""
    for name, colour in (("green", (0, 200, 0)), ("red", (200, 0, 0))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / name / f"{index}.png")
    (tmp_path / "map.txt").write_text("red 2\ngreen 5\n")
    return tmp_path


@pytest.fixture
def shards(root):
    (root / "shards").mkdir()
    for number, name in enumerate(("green", "red")):
        with tarfile.open(root / "shards" / f"{number}.tar", "w") as archive:
            for file in sorted((root / "data" / name).iterdir()):
                archive.add(file, f"{name}-{file.name}")
                label = tarfile.TarInfo(f"{name}-{file.stem}.cls")
                label.size = len(name)
                archive.addfile(label, io.BytesIO(name.encode()))
    return root / "shards"


class Colours(nn.Module):
    """Class 2 is red, class 5 is green."""

    def forward(self, images):
        mean = images.mean(dim=(2, 3))
        return torch.stack(
            [mean[:, 0] if label == 2 else mean[:, 1] if label == 5 else mean[:, 2] for label in range(6)], dim=1
        )


def load(data, name="folder", **settings):
    return benchmarks.load(name, data, preprocess=SMALL, **settings)


def test_the_class_map_says_which_class_of_the_model_a_folder_is(root):
    (part,) = load(root / "data", class_map=root / "map.txt").parts
    assert part.num_classes == part.settings["classes"] == 6
    assert part.settings == {
        "dataset": "folder",
        "path": str(root / "data"),
        "class_map": hashlib.sha256(b"red 2\ngreen 5\n").hexdigest(),
        "preprocessing": SMALL.settings,
        "classes": 6,
    }
    assert evaluate(Colours(), load(root / "data", class_map=root / "map.txt")).rows[0].correct == 8
    (plain,) = load(root / "data").parts
    assert (plain.num_classes, "class_map" in plain.settings) == (2, False)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_evaluated_like_the_folder_with_names_in_the_records(root, shards, tmp_path, workers):
    chosen = load(shards, reader="wds", class_map=root / "map.txt")
    assert chosen.parts[0].settings["reader"] == "wds"
    found = evaluate(Colours(), chosen, out=tmp_path / "out", shard_size=3, batch_size=2, workers=workers)
    assert (found.rows[0].correct, found.rows[0].count) == (8, 8)
    names = [seen.name for seen in read_records(tmp_path / "out" / RECORDS)]
    assert names == [f"0.tar/green-{n}.png" for n in range(4)] + [f"1.tar/red-{n}.png" for n in range(4)]


def test_an_evaluation_of_shards_goes_on_and_refuses_other_shards(root, shards, tmp_path):
    chosen = {"reader": "wds", "class_map": root / "map.txt"}
    first = evaluate(Colours(), load(shards, **chosen), out=tmp_path / "out", shard_size=3)
    assert evaluate(Colours(), load(shards, **chosen), out=tmp_path / "out", shard_size=3).rows == first.rows
    (root / "map.txt").write_text("red 5\ngreen 2\n")
    with pytest.raises(ValueError):
        evaluate(Colours(), load(shards, **chosen), out=tmp_path / "out", shard_size=3)


@pytest.mark.parametrize("name", ["folder-c", "folder-pgd", "folder-autoattack"])
def test_the_whole_family_reads_what_the_reader_says(root, shards, name):
    clean, changed = load(shards, name, reader="wds", class_map=root / "map.txt").parts
    assert clean.data is changed.data
    assert len(changed.data) == 8
    assert json.dumps(changed.settings)


def test_hugging_face_data_says_its_split(root, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    chosen = load(root / "cache", reader=f"hfds/{root / 'data'}", split="train", class_map=root / "map.txt")
    (part,) = chosen.parts
    assert (part.settings["split"], part.num_classes) == ("train", 6)
    assert evaluate(Colours(), chosen).rows[0].correct == 8


def test_the_list_sees_folders_and_tar_files(root, shards, tmp_path):
    (entry, *_) = FAMILY.entries()
    assert is_there(entry, root / "data")
    assert is_there(entry, shards)
    (tmp_path / "nothing").mkdir()
    assert not is_there(entry, tmp_path / "nothing")


def test_errors_say_how_the_data_should_lie(root, tmp_path):
    for data, settings, kind, word in (
        (None, {}, ValueError, r"give data \(--data DIR\)"),
        (root / "nowhere", {}, FileNotFoundError, "no image folder .*nowhere"),
        (root / "data", {"reader": "wds"}, FileNotFoundError, r"no tar file .*\*\.tar"),
        (root / "data", {"reader": "lmdb/x"}, ValueError, "unknown reader 'lmdb/x'"),
        (root / "data" / "red", {}, ValueError, "no class folders"),
    ):
        with pytest.raises(kind, match=rf"(?s){word}.*Expected DIR/<class>/<image>.*--reader wds.*--reader hfds/NAME"):
            load(data, **settings)
    (root / "map.txt").write_text("red 2\n")
    with pytest.raises(ValueError, match=r"the class 'green' of .*data/green is not in the class map .*map\.txt"):
        load(root / "data", class_map=root / "map.txt")
    with pytest.raises(FileNotFoundError, match="no class map"):
        load(root / "data", class_map=root / "nowhere.txt")


def test_a_damaged_image_is_named_with_its_shard(root, shards):
    path = shards / "0.tar"
    content = bytearray(path.read_bytes())
    first = tar_members(path)[0]
    content[first.offset + 20 : first.offset + first.size] = bytes(first.size - 20)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"cannot read the image .*0\.tar/green-0\.png"):
        evaluate(Colours(), load(shards, reader="wds", class_map=root / "map.txt"))


def test_a_picture_of_16_bits_is_seen_like_one_of_8(root):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 4
    for folder, picture in (("red", values * 257), ("green", values.astype(np.uint8))):
        for file in (root / "data" / folder).iterdir():
            Image.fromarray(picture).save(file)
    (part,) = load(root / "data").parts
    assert torch.equal(part.data[0][0], part.data[7][0])
