"""The files of a copy in the form of ImageNet-C."""

import io
import os
import time

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corrupted_tree import CorruptedTree, encoded_image
from robust_bench.corruption_cells import Cell
from robust_bench.corruptions.jpeg import store_as_jpeg85

CELLS = (Cell("fog", 1), Cell("fog", 5), Cell("contrast", 5))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture
def tree(tmp_path):
    names = ("a/1.JPEG", "a/2.JPEG", "b/1.JPEG")
    return CorruptedTree(folder=tmp_path, unfinished=tmp_path / ".parts", names=names, cells=CELLS, form="jpeg")


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (33, 50)])
def test_a_jpeg_file_is_what_is_stored_and_read_in_memory(pictures, size):
    images = pictures(3, size)
    for image, expected in zip(images, store_as_jpeg85(images), strict=True):
        content = encoded_image(image, "jpeg")
        assert torch.equal(decoded(content), expected)
        with Image.open(io.BytesIO(content)) as file:
            (luma, *chroma) = file.layer
            assert (luma[1:3], [part[1:3] for part in chroma]) == ((2, 2), [(1, 1)] * 2)  # 4:2:0
            reference = io.BytesIO()
            file.save(reference, "JPEG", quality=85)
        with Image.open(reference) as other:
            assert file.quantization == other.quantization


def test_a_png_file_holds_the_image(pictures):
    for image in pictures(2, (40, 31)):
        assert torch.equal(decoded(encoded_image(image, "png")), image)


def test_what_is_written_is_present(tree, pictures):
    assert not tree.present().any()
    tree.write(CELLS[1], [0, 2], pictures(2), put)
    assert tree.present().tolist() == [[False] * 3, [True, False, True], [False] * 3]
    assert (tree.folder / "fog" / "5" / "b" / "1.JPEG").is_file()
    put(tree.folder / "fog" / "5" / "a" / "other.JPEG", b"")
    assert not tree.present()[1, 1]


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tree):
    for name, age in ((".1.JPEG.1234abcd.tmp", 7200), (".2.JPEG.1234abcd.tmp", 60)):
        put(tree.unfinished / name, b"cut o")
        os.utime(tree.unfinished / name, (time.time() - age,) * 2)
    tree.finish()
    assert [path.name for path in tree.unfinished.iterdir()] == [".2.JPEG.1234abcd.tmp"]


def test_files_take_whole_blocks(tree, pictures):
    images = pictures(4, (64, 64))
    sizes = [len(encoded_image(image, "jpeg")) for image in images]
    assert tree.bytes_per_image(images) == sum(4096 * (1 + (size - 1) // 4096) for size in sizes) / 4
