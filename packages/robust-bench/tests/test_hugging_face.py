"""Hugging Face data sets, small and local: the same images and labels as in what they were made from."""

import importlib
import importlib.util
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.hugging_face import HuggingFace
from robust_bench.preprocess import AsStored
from torch.utils.data import DataLoader

SIDE = 10
AS_STORED = AsStored(stored=SIDE)
CLASSES = ("owl", "cat", "dog")


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def datasets():
    """The package, kept from the network in both of the places where it looks."""
    found = pytest.importorskip("datasets")
    constants = importlib.import_module("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found.config, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield found


@pytest.fixture(scope="module")
def parquet(datasets, tmp_path_factory):
    """A function that writes a folder with a Parquet file of one split, of 7 images."""

    def write(labels, names=CLASSES, columns=("image", "label"), split="validation"):
        folder = tmp_path_factory.mktemp("set")
        images = [{"bytes": picture(n), "path": f"{n % 2}.png"} for n in range(len(labels))]
        plain = datasets.Value("string" if isinstance(labels[0], str) else "int64")
        plain = datasets.Sequence(plain) if isinstance(labels[0], list) else plain
        kind = datasets.ClassLabel(names=list(names)) if names else plain
        features = datasets.Features({columns[0]: datasets.Image(), columns[1]: kind, "note": datasets.Value("string")})
        rows = {columns[0]: images, columns[1]: labels, "note": [""] * len(labels)}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        return folder

    return write


@pytest.fixture(scope="module")
def folder(parquet):
    return parquet([n % 3 for n in range(7)])


@pytest.fixture
def opened(datasets, tmp_path):
    def open_(folder, **settings):
        return HuggingFace(str(folder), cache=tmp_path / "cache", preprocess=AS_STORED, **settings)

    return open_


def assert_right(images, ids):
    expected = np.stack([pixels(number) for number in ids])
    assert torch.equal(images, torch.from_numpy(expected).permute(0, 3, 1, 2) / 255)


def test_images_and_labels_are_those_of_the_file(folder, opened):
    data = opened(folder)
    assert (len(data), data.num_classes, data.classes) == (7, 3, CLASSES)
    for index in (6, 0, 3):
        image, label = data[index]
        assert_right(image[None], [index])
        assert label == index % 3
    assert [data.filename(index) for index in (0, 3)] == ["validation/0/0.png", "validation/3/1.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_pickled_copies_read_the_same(folder, opened, workers):
    data = pickle.loads(pickle.dumps(opened(folder)))
    batches = list(DataLoader(data, 3, num_workers=workers))
    assert_right(torch.cat([images for images, _ in batches]), range(7))
    assert torch.cat([labels for _, labels in batches]).tolist() == [n % 3 for n in range(7)]


def test_a_folder_of_images_has_the_same_images_and_names(opened, tmp_path):
    for number, name in enumerate(("cat", "dog", "cat")):
        (tmp_path / "set" / "test" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "test" / name / f"{number}.png").write_bytes(picture(number))
    data = opened(tmp_path / "set", split="test")
    assert (data.classes, [label for _, label in data]) == (("cat", "dog"), [0, 0, 1])
    assert_right(torch.stack([image for image, _ in data]), (0, 2, 1))
    assert data.filename(2) == "test/2/1.png"
    usual = data.fingerprint
    (tmp_path / "set" / "test" / "cat" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"cannot read the image test/0/0\.png of .*FileNotFoundError"):
        data[0]
    (tmp_path / "set" / "test" / "cat" / "0.png").write_bytes(picture(0) + b"more")
    assert opened(tmp_path / "set", split="test").fingerprint != usual


def test_the_only_columns_of_images_and_classes_are_taken(parquet, opened):
    data = opened(parquet([0, 1, 2], columns=("img", "fine")))
    assert [label for _, label in data] == [0, 1, 2]
    assert_right(torch.stack([image for image, _ in data]), range(3))


def test_a_class_map_takes_names_where_there_are_any(parquet, folder, opened):
    data = opened(folder, class_map=ClassMap(labels={"owl": 9, "cat": 0, "dog": 0}))
    assert [label for _, label in data] == [9, 0, 0, 9, 0, 0, 9]
    assert data.num_classes == 10
    numbers = opened(parquet([0, 5], names=()), class_map=ClassMap(labels={"0": 1, "5": 0}))
    assert [label for _, label in numbers] == [1, 0]
    texts = opened(parquet(["b", "a"], names=()), class_map=ClassMap(labels={"a": 0, "b": 1}))
    assert [label for _, label in texts] == [1, 0]
    with pytest.raises(ValueError, match=r"the class 'dog' of the split 'validation' of .* is not in the class map"):
        opened(folder, class_map=ClassMap(labels={"owl": 0, "cat": 1}))


def test_numbers_without_names_are_labels(parquet, opened):
    data = opened(parquet([4, 0], names=()))
    assert ([label for _, label in data], data.num_classes) == ([4, 0], 5)


def test_the_fingerprint_follows_images_labels_and_treatment_but_not_the_cache(parquet, folder, opened, tmp_path):
    usual = opened(folder).fingerprint
    assert HuggingFace(str(folder), cache=tmp_path / "other", preprocess=AS_STORED).fingerprint == usual
    others = {
        HuggingFace(str(folder), cache=tmp_path / "cache", preprocess=AsStored(stored=SIDE, size=5)).fingerprint,
        opened(folder, class_map=ClassMap(labels={"owl": 1, "cat": 0, "dog": 2})).fingerprint,
        opened(parquet([n % 3 for n in range(6)])).fingerprint,
    }
    assert len(others - {usual}) == 3


@pytest.mark.parametrize(
    ("labels", "names", "word"),
    [
        ([0, -1], (), "has images without labels .written as -1.: choose another split"),
        (["a", "b"], (), "has the label 'a', no number: give a class map"),
        ([0, None], CLASSES, "has images without labels .written as None."),
        ([[0, 1], [2]], (), r"has the label \[0, 1\], no number"),
    ],
)
def test_what_is_no_label_is_an_error(parquet, opened, labels, names, word):
    with pytest.raises(ValueError, match=word):
        opened(parquet(labels, names=names))


def test_missing_things_are_errors_that_name_them(parquet, folder, opened, tmp_path):
    with pytest.raises(ValueError, match=r"split 'test' .*Should be one of.*validation"):
        opened(folder, split="test")
    with pytest.raises(FileNotFoundError, match=r"cannot open .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"cannot open .*nobody/nothing .*Offline"):
        opened("nobody/nothing")
    with pytest.raises(ValueError, match=r"a column 'label', or one column of ClassLabels, got image, kind, note"):
        opened(parquet([0, 1], names=(), columns=("image", "kind")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "validation-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"cannot open .*broken"):
        opened(tmp_path / "broken")


def test_a_damaged_image_is_an_error_with_its_place(datasets, opened, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    images = [{"bytes": picture(0)[:60], "path": "x.png"}, None]
    (tmp_path / "set").mkdir()
    made = datasets.Dataset.from_dict({"image": images, "label": [0, 0]}, features=features)
    made.to_parquet(str(tmp_path / "set" / "validation.parquet"))
    data = opened(tmp_path / "set")
    with pytest.raises(ValueError, match=r"cannot read the image validation/0/x\.png of "):
        data[0]
    with pytest.raises(ValueError, match=r"cannot read the image validation/1 of "):
        data[1]
    assert data.fingerprint


@pytest.mark.parametrize("shadow", [False, True])
def test_without_the_package_the_error_says_what_to_install(monkeypatch, shadow):
    """Also where the working directory has a folder of that name, which Python takes for a package of no origin."""
    found = importlib.util.spec_from_loader("datasets", None) if shadow else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        HuggingFace("x", preprocess=AS_STORED)
