"""Class folders in tar files: the same images and labels as timm's reader finds."""

import io
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.tar_folders import tar_folders
from robust_bench.preprocess import AsStored
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import DataLoader

SIDE = 10
AS_STORED = AsStored(stored=SIDE)


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            content = picture(zlib.crc32(name.encode())) if name.endswith(".png") else b"?"
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


@pytest.fixture
def one(tmp_path):
    pack(tmp_path / "val.tar", ["val/10/b.png", "val/2/a.png", "val/2/notes.txt", "val/1/c.png", "val/1/d.png"])
    return tmp_path / "val.tar"


@pytest.fixture
def by_class(tmp_path):
    (tmp_path / "classes").mkdir()
    for name in ("n2", "n10", "n1"):
        pack(tmp_path / "classes" / f"{name}.tar", [f"{name}_{number}.png" for number in range(3)])
    return tmp_path / "classes"


def opened(path, **settings):
    return tar_folders(path, preprocess=AS_STORED, **settings)


@pytest.mark.parametrize("layout", ["one", "by_class"])
def test_images_and_labels_are_those_of_timms_reader(request, layout):
    path = request.getfixturevalue(layout)
    reader = ReaderImageInTar(str(path), cache_tarinfo=False, cache_tarfiles=False)
    expected = {}
    for index in range(len(reader)):
        name, (member, label) = reader.filename(index), reader[index]
        content = member.read()
        member.raw.fileobj.close()
        with Image.open(io.BytesIO(content)) as image:
            expected[name] = (int(label), np.asarray(image).tobytes())
    data = opened(path)
    found = {}
    for index in range(len(data)):
        image, label = data[index]
        content = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()
        found[data.filename(index).partition("/")[2]] = (label, content)
    assert found == expected
    assert data.num_classes == 3


def test_workers_read_the_same(by_class):
    data = opened(by_class)
    alone = [data[index] for index in range(len(data))]
    batches = list(DataLoader(data, 2, num_workers=2))
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack([image for image, _ in alone]))
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in alone]


def test_a_class_map_gives_the_labels(one):
    data = opened(one, class_map=ClassMap(labels={"1": 7, "2": 7, "10": 0}))
    assert [label for _, label in data] == [0, 7, 7, 7]
    assert data.num_classes == 8
    with pytest.raises(ValueError, match=r"the class '10' of .* is not in the class map"):
        opened(one, class_map=ClassMap(labels={"1": 0, "2": 1}))


def test_hidden_files_are_left_out(tmp_path):
    pack(tmp_path / "x.tar", ["cat/1.png", "cat/._1.png", "__MACOSX/cat/1.png", ".git/x.png"])
    assert [opened(tmp_path / "x.tar").filename(index) for index in range(1)] == ["x.tar/cat/1.png"]
    assert len(opened(tmp_path / "x.tar")) == 1


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["n1.tar", "n2.tar"], "holds other tar files, e.g. n1.tar: unpack it once"),
        (["cat/1.png", "cat/1.png"], "has cat/1.png twice"),
        (["cat/1.txt"], "no images in"),
    ],
)
def test_errors_name_the_tar_file(tmp_path, names, word):
    pack(tmp_path / "x.tar", names)
    with pytest.raises(ValueError, match=word) as found:
        opened(tmp_path / "x.tar")
    assert "x.tar" in str(found.value)
