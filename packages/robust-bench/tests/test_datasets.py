"""The digits' split and folders of images."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets import class_folders, digits, folder
from robust_bench.datasets.class_map import ClassMap
from robust_bench.preprocess import AsStored, Preprocess
from sklearn.datasets import load_digits
from timm.data.readers.reader_image_folder import ReaderImageFolder
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


@pytest.fixture
def noise(tmp_path):
    """Images of 12 x 12 random pixels in three classes, with names whose order is not that of their letters."""
    generator = np.random.default_rng(0)
    for name in ("b/2.png", "b/10.png", "b/x1y20.PNG", "b/x1y3.png", "a2/1.png", "a10/1.png", "a10/0.png"):
        (tmp_path / "noise" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / name, "PNG")
    return tmp_path / "noise"


@pytest.mark.parametrize("workers", [0, 2])
def test_images_labels_and_their_order_are_those_of_timms_reader(noise, workers):
    reader = ReaderImageFolder(str(noise))
    data = pickle.loads(pickle.dumps(folder(noise, preprocess=AsStored(stored=12))))
    assert [data.filename(index) for index in range(len(data))] == reader.filenames()
    batches = list(DataLoader(data, 3, num_workers=workers))
    images = torch.cat([images for images, _ in batches])
    expected = np.stack([np.asarray(Image.open(path)) for path, _ in reader.samples])
    assert torch.equal(images, torch.from_numpy(expected).permute(0, 3, 1, 2) / 255)
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in reader.samples]


def test_a_class_map_changes_labels_and_not_the_order(noise):
    plain = folder(noise)
    mapped = folder(noise, class_map=ClassMap(labels={"a2": 7, "a10": 7, "b": 0, "never seen": 9}))
    names = [mapped.filename(index) for index in range(7)]
    assert names == [plain.filename(index) for index in range(7)]
    assert [mapped[index][1] for index in range(7)] == [7 if name.startswith("a") else 0 for name in names]
    assert (plain.num_classes, mapped.num_classes) == (3, 10)
    assert plain.fingerprint != mapped.fingerprint == pickle.loads(pickle.dumps(mapped)).fingerprint


def test_a_folder_that_is_not_in_the_class_map_is_an_error_with_its_path(noise):
    with pytest.raises(ValueError, match=r"the class 'a10' of .*noise/a10 is not in the class map"):
        folder(noise, class_map=ClassMap(labels={"a2": 0, "b": 1}))


def test_a_class_map_is_asked_once_for_a_class_and_not_for_every_image(noise):
    class Counting(ClassMap):
        def label(self, name, *, of):
            asked.append(name)
            return super().label(name, of=of)

    asked = []
    data = folder(noise, class_map=Counting(labels={"a2": 0, "a10": 1, "b": 2}))
    list(data)
    assert sorted(asked) == ["a10", "a2", "b"]


def test_other_files_and_hidden_ones_are_not_looked_at(noise):
    before = [folder(noise).filename(index) for index in range(7)]
    for name in ("readme.txt", "b/Thumbs.db", "b/._2.png", "b/notes/x.txt", ".cache/x.png", "__MACOSX/b/2.png"):
        (noise / name).parent.mkdir(parents=True, exist_ok=True)
        (noise / name).write_bytes(b"?")
    assert [folder(noise).filename(index) for index in range(len(folder(noise)))] == before


def test_images_of_other_formats_are_not_lost(noise):
    for ending in ("webp", "bmp", "ppm", "jpeg", "tif"):
        Image.new("RGB", (12, 12)).save(noise / "b" / f"more.{ending}")
    assert len(folder(noise)) == 7 + 5


def test_the_fingerprint_follows_names_sizes_and_treatment(noise):
    usual = folder(noise).fingerprint
    assert folder(noise).fingerprint == usual
    others = {folder(noise, preprocess=Preprocess(size=8)).fingerprint}
    (noise / "b" / "2.png").rename(noise / "b" / "3.png")
    others.add(folder(noise).fingerprint)
    with (noise / "b" / "3.png").open("ab") as file:
        file.write(b"more")
    others.add(folder(noise).fingerprint)
    assert len(others - {usual}) == 3


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
    with pytest.raises(ValueError, match=r"no images in the class folder .*3: fill it or remove it"):
        folder(root, class_map=ClassMap(labels={"1": 0, "2": 1, "3": 2, "10": 3}))


def test_images_deeper_or_outside_are_errors(root):
    Image.new("RGB", (9, 9)).save(root / "stray.png")
    with pytest.raises(ValueError, match=r"outside of class folders below .*stray\.png"):
        folder(root)
    (root / "stray.png").unlink()
    (root / "1" / "2").mkdir()
    Image.new("RGB", (9, 9)).save(root / "1" / "2" / "deep.png")
    with pytest.raises(ValueError, match=r"outside of class folders below .*1/2/deep\.png"):
        folder(root)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_an_error_with_its_path(root, workers):
    path = root / "2" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    data = folder(root, preprocess=Preprocess(size=8))
    with pytest.raises(ValueError, match=r"cannot read the image .*1\.png"):
        list(DataLoader(data, 2, num_workers=workers))
