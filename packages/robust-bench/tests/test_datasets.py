"""The digits' split and folders of images."""

import hashlib

import pytest
import torch
from PIL import Image
from robust_bench.datasets import class_folders, digits, folder
from robust_bench.preprocess import Preprocess
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader


def keys(images):
    return [image.numpy().tobytes() for image in images]


def test_the_split_is_the_documented_one():
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1347, 450)
    images, labels = train.tensors
    assert images.shape == (1347, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    digest = hashlib.sha256(bytes(digits("test").tensors[1].tolist())).hexdigest()
    assert digest == "036d17c8daea3f96ab2dc3040b68298f1f0b920f88dc56f8c980fec2f4bc5e9c"


def test_both_parts_together_are_all_digits_once():
    found = load_digits()
    whole = torch.from_numpy(found.images).float()[:, None] / 16
    parts = [digits("train").tensors, digits("test").tensors]
    assert sorted(keys(torch.cat([images for images, _ in parts]))) == sorted(keys(whole))


def test_every_class_keeps_its_share():
    counts = torch.bincount(torch.from_numpy(load_digits().target)).double()
    test = torch.bincount(digits("test").tensors[1]).double()
    assert test.sum() == 450
    assert ((test - counts * 450 / 1797).abs() < 1.0).all()


def test_two_calls_are_equal_and_independent():
    first, second = digits("test").tensors[0], digits("test").tensors[0]
    assert torch.equal(first, second)
    first.zero_()
    assert not torch.equal(first, digits("test").tensors[0])


def test_the_global_random_states_stay():
    import numpy

    before, legacy = torch.get_rng_state(), numpy.random.get_state()[1].copy()  # noqa: NPY002
    digits("train")
    assert torch.equal(before, torch.get_rng_state())
    assert (legacy == numpy.random.get_state()[1]).all()  # noqa: NPY002


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="'train' or 'test'"):
        digits("val")


@pytest.fixture
def root(tmp_path):
    """Three classes of plain colours; "10" must come after "2"."""
    for label, name in enumerate(["1", "2", "10"]):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("RGB", (60, 40), (100 * label, 50, 10 * index)).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_a_folder_gives_floats_and_class_numbers(root):
    data = folder(root, preprocess=Preprocess(size=16))
    assert data.classes == class_folders(root) == ("1", "2", "10")
    assert len(data) == 6
    image, label = data[5]
    assert image.shape == (3, 16, 16)
    assert label == 2
    assert image[:, 3, 3].tolist() == pytest.approx([200 / 255, 50 / 255, 10 / 255])


def test_a_transform_of_the_callers_is_used(root):
    data = folder(root, transform=lambda picture: torch.full((1, 2, 2), picture.width, dtype=torch.float32))
    assert torch.equal(data[0][0], torch.full((1, 2, 2), 60.0))
    with pytest.raises(ValueError, match="not both"):
        folder(root, preprocess=Preprocess(), transform=lambda picture: picture)


def test_grey_and_transparent_images_become_three_channels(root):
    Image.new("L", (20, 20), 7).save(root / "1" / "0.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(root / "1" / "1.png")
    data = folder(root, preprocess=Preprocess(size=8))
    assert [data[index][0].shape[0] for index in (0, 1)] == [3, 3]


def test_a_missing_folder_is_an_error_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder(tmp_path / "nowhere")


def test_a_folder_without_classes_or_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no class folders"):
        folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no images below"):
        folder(tmp_path)


def test_an_empty_class_would_move_the_labels_and_is_an_error(root):
    (root / "3").mkdir()
    with pytest.raises(ValueError, match=r"3: the labels of the classes after it"):
        folder(root)


def test_images_deeper_or_outside_are_errors(root):
    Image.new("RGB", (9, 9)).save(root / "stray.png")
    with pytest.raises(ValueError, match="outside of class folders"):
        folder(root)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_an_error_with_its_path(root, workers):
    path = root / "2" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    data = folder(root, preprocess=Preprocess(size=8))
    with pytest.raises(ValueError, match=r"cannot read the image .*1\.png"):
        list(DataLoader(data, 2, num_workers=workers))
