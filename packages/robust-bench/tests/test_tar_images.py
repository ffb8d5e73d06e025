"""Images in tar files as a data set: what it keeps, and what changes its fingerprint."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from robust_bench.datasets.tar_file import Member, tar_members
from robust_bench.datasets.tar_images import Labelled, TarImages
from robust_bench.preprocess import AsStored

AS_STORED = AsStored(stored=8)


@pytest.fixture
def shard(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 51)).save(file, "PNG")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        about = tarfile.TarInfo("a.png")
        about.size = len(file.getvalue())
        archive.addfile(about, io.BytesIO(file.getvalue()))
    return tmp_path / "x.tar"


def images(shard, count=1, label=3, name="a.png"):
    (member,) = tar_members(shard)
    return (Labelled(0, Member(name, member.offset, member.size), label) for _ in range(count))


def test_an_image_and_its_label_come_out(shard):
    data = TarImages([shard], images(shard), preprocess=AS_STORED)
    image, label = data[0]
    assert image[:, 5, 2].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert (label, data.num_classes, data.filename(0)) == (3, 4, "x.tar/a.png")
    assert TarImages([shard], images(shard), num_classes=10, preprocess=AS_STORED).num_classes == 10


def test_no_images_are_an_error_with_the_tar_file(shard):
    with pytest.raises(ValueError, match=r"no images in .*x\.tar$"):
        TarImages([shard], [], preprocess=AS_STORED)


def test_a_hundred_thousand_images_take_some_bytes_each_and_no_files(shard):
    data = TarImages([shard], images(shard, 100_000), preprocess=AS_STORED)
    assert len(data) == 100_000
    assert len(pickle.dumps(data)) < 100 * len(data)
    before = open_files()
    for index in range(0, 100_000, 9973):
        data[index]
    assert open_files() <= before + 1


def open_files():
    handles = Path("/proc/self/fd")
    return len(list(handles.iterdir())) if handles.is_dir() else 0


def test_the_fingerprint_follows_names_labels_and_treatment(shard):
    def fingerprint(preprocess=AS_STORED, **settings):
        return TarImages([shard], images(shard, **settings), preprocess=preprocess).fingerprint

    assert fingerprint() == fingerprint()
    changed = [
        fingerprint(label=2),
        fingerprint(name="b.png"),
        fingerprint(count=2),
        fingerprint(preprocess=AsStored(stored=8, size=4)),
    ]
    assert len({fingerprint(), *changed}) == 5
