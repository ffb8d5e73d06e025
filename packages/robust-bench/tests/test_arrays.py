"""Arrays of images in NumPy files."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.arrays import Arrays, mapped
from robust_bench.preprocess import AsStored
from torch.utils.data import DataLoader

STORED = AsStored(stored=8)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path, images):
    np.save(tmp_path / "fog.npy", images)
    return tmp_path / "fog.npy"


def tensor(array):
    return torch.from_numpy(np.moveaxis(array, -1, -3).copy()) / 255


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_come_as_they_are_stored(file, images, workers):
    data = Arrays(file, range(4), rows=range(4, 8), preprocess=STORED)
    ((found, labels),) = DataLoader(data, 4, num_workers=workers)
    assert torch.equal(found, tensor(images[4:8]))
    assert labels.tolist() == [0, 1, 2, 3]


def test_an_array_in_memory_gives_the_same_as_its_file(file, images):
    one, other = (Arrays(source, [0] * 12, preprocess=STORED) for source in (file, images))
    assert torch.equal(one[7][0], other[7][0])


def test_sequences_have_a_frame_axis(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "tilt.npy", frames)
    data = Arrays(tmp_path / "tilt.npy", [3, 4], preprocess=STORED)
    assert torch.equal(data[1][0], tensor(frames[1]))
    assert data[1][1] == 4


def test_another_input_size_takes_one_resize(file, images):
    found = Arrays(file, [0] * 12, preprocess=AsStored(stored=8, size=6))[2][0]
    resized = Image.fromarray(images[2]).resize((6, 6), Image.Resampling.BILINEAR)
    assert torch.equal(found, tensor(np.array(resized)))


def test_a_file_of_a_hundred_gigabytes_is_read_row_by_row(tmp_path):
    shape = (10**5, 350, 32, 32, 3)  # sparse: nothing of it is on the disk
    try:
        large = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.uint8, shape=shape)
    except OSError as error:
        pytest.skip(f"this file system keeps no sparse file of 107 GB: {error}")
    large[99_999, 349] = 255
    large.flush()
    data = Arrays(tmp_path / "large.npy", [7], rows=range(99_999, 10**5), preprocess=AsStored(stored=32))
    frames, label = data[0]
    assert (frames.shape, label) == ((350, 3, 32, 32), 7)
    assert float(frames.sum()) == 32 * 32 * 3
    assert len(data.fingerprint) == 64


def test_the_mapped_file_does_not_travel_to_other_processes(file):
    data = Arrays(file, [0] * 12, preprocess=STORED)
    before = data[5][0]
    packed = pickle.dumps(data)
    assert len(packed) < 12 * 8 * 8 * 3
    assert torch.equal(pickle.loads(packed)[5][0], before)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((12, 8, 8, 3)), "got float64"),
        (np.zeros((12, 3, 8, 8), dtype=np.uint8), r"must be uint8 \(N, 8, 8, 3\) .* got uint8 \(12, 3, 8, 8\)"),
        (np.zeros((12, 9, 9, 3), dtype=np.uint8), "got uint8"),
        (np.zeros((8, 8, 3), dtype=np.uint8), "got uint8"),
        (np.zeros((11, 8, 8, 3), dtype=np.uint8), "has 11 rows, of which 12 are wanted, with 12 labels"),
    ],
)
def test_other_shapes_and_types_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        Arrays(array, [0] * 12, rows=range(12), preprocess=STORED)


def test_there_is_a_label_for_every_row(images):
    with pytest.raises(ValueError, match="with 11 labels"):
        Arrays(images, [0] * 11, preprocess=STORED)


def test_a_cut_off_file_is_named(file):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cannot read the array .*fog\.npy .*cut off"):
        mapped(file)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot read the array .*evil\.npy"):
        mapped(tmp_path / "evil.npy")
    with pytest.raises(FileNotFoundError, match=r"no array .*none\.npy"):
        mapped(tmp_path / "none.npy")


def test_the_fingerprint_knows_content_rows_labels_and_treatment(file, images):
    def fingerprint(labels=range(6), rows=range(6), preprocess=STORED):
        return Arrays(file, labels, rows=rows, preprocess=preprocess).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    others = {
        fingerprint(labels=[0] * 6),
        fingerprint(rows=range(6, 12)),
        fingerprint(preprocess=AsStored(stored=8, size=4)),
    }
    images[3, 0, 0, 0] ^= 1
    np.save(file, images)
    assert len({first, fingerprint(), *others}) == 5
