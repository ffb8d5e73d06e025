"""CIFAR's test images, from synthetic files of the published form."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets
from robust_bench.benchmarks import Options, cifar
from robust_bench.datasets.cifar import FOLDERS
from robust_bench.datasets.cifar import cifar as open_cifar

KINDS = [(10, torchvision.datasets.CIFAR10, "labels"), (100, torchvision.datasets.CIFAR100, "fine_labels")]


def write(file, content):
    """Pickle as Python 2 did, and give the MD5."""
    file.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture(params=KINDS, ids=["cifar-10", "cifar-100"])
def kind(request, tmp_path, monkeypatch):
    """A folder with eight test images, whose MD5 torchvision is told."""
    classes, opened, labels = request.param
    folder = tmp_path / FOLDERS[classes]
    folder.mkdir()
    random = np.random.default_rng(classes)
    data = random.integers(0, 256, (8, 3072), dtype=np.uint8)
    targets = random.integers(0, classes, 8).tolist()
    for name in ("train_list", "test_list"):
        listed = [[file, write(folder / file, {"data": data, labels: targets})] for file, _ in getattr(opened, name)]
        monkeypatch.setattr(opened, name, listed)
    meta = {**opened.meta, "md5": write(folder / opened.meta["filename"], {opened.meta["key"]: ["c"] * classes})}
    monkeypatch.setattr(opened, "meta", meta)
    return classes, folder, data, targets


def test_images_and_labels_are_those_of_the_test_batch(kind):
    classes, folder, data, targets = kind
    for path in (folder, folder.parent):
        found = open_cifar(path, classes)
        assert found.labels == targets
        image, label = found[5]
        assert torch.equal(image, torch.from_numpy(data[5].reshape(3, 32, 32)) / 255)
        assert label == targets[5]


def test_the_benchmark_says_what_it_is(kind):
    classes, folder, _, _ = kind
    (part,) = cifar.CLEAN[classes].build(Options(data=folder.parent)).parts
    assert (part.name, part.label, part.num_classes, len(part.data)) == (f"cifar-{classes}",) * 2 + (classes, 8)
    assert part.settings["preprocessing"]["steps"] == "none"
    assert part.settings["images_expected"] == 10_000
    (larger,) = cifar.CLEAN[classes].build(Options(data=folder, size=64)).parts
    assert larger.data[0][0].shape == (3, 64, 64)
    assert larger.settings["preprocessing"]["steps"] == "Resize(64 from 32, bilinear, antialiased)"


def test_a_damaged_file_is_an_error_with_the_layout(kind):
    classes, folder, _, _ = kind
    file = folder / {10: "test_batch", 100: "test"}[classes]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"CIFAR-{classes} in .* MD5 differs: .* Expected DIR/{FOLDERS[classes]}"):
        cifar.CLEAN[classes].build(Options(data=folder.parent))


def test_a_missing_folder_is_an_error_with_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data of .*'cifar-10' .*cifar-10-python\.tar\.gz from https"):
        cifar.CLEAN[10].build(Options(data=tmp_path))
    with pytest.raises(ValueError, match="give data"):
        cifar.CLEAN[10].build(Options())
    with pytest.raises(FileNotFoundError, match=r"no folder .*cifar-100-python"):
        open_cifar(tmp_path, 100)


def test_arrays_of_pickles_by_python_2_open_without_a_warning(kind):
    """They say `align=0`, of which NumPy 2.4.0 to 2.4.4 warn."""
    classes, folder, _, targets = kind

    class Old:
        def __reduce__(self):
            return np.dtype, ("u1", 0, 1)

    opened = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}[classes]
    (listed,) = opened.test_list
    content = pickle.loads((folder / listed[0]).read_bytes()) | {"dtype": Old()}
    listed[1] = write(folder / listed[0], content)
    assert open_cifar(folder, classes).labels == targets
