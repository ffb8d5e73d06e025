"""A user's own data in every format: the same images, labels and numbers of classes."""

import io
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.readers import READERS, open_images
from robust_bench.preprocess import AsStored

SIDE = 8
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def contents():
    """Names and bytes of nine images, three of each class."""
    generator = np.random.default_rng(0)
    out = {}
    for number in range(9):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG")
        out[f"{CLASSES[number // 3]}/{number}.png"] = file.getvalue()
    return out


@pytest.fixture(scope="module")
def root(contents, tmp_path_factory):
    """The same images in a folder, in tar files of folders, and in WebDataset's shards."""
    root = tmp_path_factory.mktemp("formats")
    for name, content in contents.items():
        (root / "folders" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folders" / name).write_bytes(content)
    (root / "tars").mkdir()
    pack(root / "tars" / "all.tar", contents)
    (root / "shards").mkdir()
    for shard in range(3):
        some = list(contents.items())[3 * shard : 3 * shard + 3]
        labels = {name.replace(".png", ".cls"): name.partition("/")[0].encode() for name, _ in some}
        pack(root / "shards" / f"val-{shard}.tar", dict(some) | labels)
    return root


def pack(path, contents):
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def opened(data, **settings):
    return open_images(data, preprocess=AsStored(stored=SIDE), **settings)


FORMATS = {
    "": "folders",
    "wds": "shards",
    "wds/": "shards",
    "WDS/val-{0..2}.tar": "shards",
    "tar": "tars",
    "tar/all.tar": "tars",
}


@pytest.mark.parametrize(("reader", "place"), FORMATS.items())
def test_all_formats_give_the_same(root, contents, reader, place):
    labels = {"cat": 2, "dog": 0, "owl": 2, "emu": 3}
    data = opened(root / place, reader=reader, class_map=ClassMap(labels=labels))
    assert (len(data), data.num_classes) == (9, 4)
    expected = [np.asarray(Image.open(io.BytesIO(content))) for content in contents.values()]
    assert torch.equal(
        torch.stack([image for image, _ in data]), torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255
    )
    assert [label for _, label in data] == [2, 2, 2, 0, 0, 0, 2, 2, 2]
    assert [data.filename(index).endswith(name) for index, name in enumerate(contents)] == [True] * 9
    assert isinstance(data.fingerprint, str)


def test_hugging_face_reads_a_folder_too(root, contents, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    data = opened(tmp_path, reader=f"hfds/{root / 'folders'}", split="train")
    assert [label for _, label in data] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(tmp_path.iterdir())  # DIR is where it keeps what it prepares


def test_errors_say_what_can_be_read(root):
    for wrong in ("tfds/x", "folder", "/x"):
        with pytest.raises(ValueError, match=r"unknown reader .*wds .*tar .*hfds"):
            opened(root / "folders", reader=wrong)
    with pytest.raises(ValueError, match=r"the reader 'hfds/' needs a name: hfds/NAME"):
        opened(None, reader="hfds/")
    for reader in READERS:
        if reader != "hfds":
            with pytest.raises(ValueError, match=r"give data \(--data DIR\)"):
                opened(None, reader=reader)


def test_no_package_is_asked_for_before_it_is_needed(root, monkeypatch):
    for name in ("datasets", "webdataset"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(opened(root / "shards", reader="wds", class_map=ClassMap(labels=dict.fromkeys(CLASSES, 0)))) == 9
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        opened(None, reader="hfds/x")
