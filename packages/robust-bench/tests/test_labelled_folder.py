"""Images in folders with given labels."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.preprocess import AsStored, Preprocess
from torch.utils.data import DataLoader

RANDOM = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path):
    """Two classes with images of 24 x 24 random pixels, as JPEG and PNG."""
    for folder, file in (("n1", "b.JPEG"), ("n1", "a.png"), ("n2", "c.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / folder / file)
    return tmp_path


def pixels(file):
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("workers", [0, 1])
def test_stored_images_are_the_pixels_of_their_files(root, workers):
    data = LabelledFolder(root, {"n1": 5, "n2": 2}, preprocess=AsStored(stored=24))
    assert [data.filename(index) for index in range(len(data))] == ["n2/c.png", "n1/a.png", "n1/b.JPEG"]
    ((images, labels),) = DataLoader(data, 3, num_workers=workers)
    assert labels.tolist() == [2, 5, 5]
    assert torch.equal(images, torch.stack([pixels(root / data.filename(index)) for index in range(3)]))


def test_the_models_own_resize_is_used(root):
    data = LabelledFolder(root, {"n2": 0}, preprocess=Preprocess(size=12, crop_share=0.5))  # the centre of 24 x 24
    torch.testing.assert_close(data[0][0], pixels(root / "n2" / "c.png")[:, 6:18, 6:18])


def test_another_input_size_takes_one_direct_resize(root):
    data = LabelledFolder(root, {"n2": 0}, preprocess=AsStored(stored=24, size=16))
    resized = Image.open(root / "n2" / "c.png").resize((16, 16), Image.Resampling.BILINEAR)
    assert torch.equal(data[0][0], torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255)


def test_a_file_of_the_wrong_size_is_named(root):
    data = LabelledFolder(root, {"n2": 0}, preprocess=AsStored(stored=32))
    with pytest.raises(ValueError, match=r"cannot read the image .*c\.png: expected 32 x 32 pixels, got 24 x 24"):
        data[0]


@pytest.mark.parametrize("keep", [0, 60])
def test_a_damaged_file_is_named(root, keep):
    file = root / "n2" / "c.png"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cannot read the image .*c\.png: "):
        LabelledFolder(root, {"n2": 0}, preprocess=AsStored(stored=24))[0]


def test_grey_images_become_three_channels(root):
    Image.new("L", (24, 24), 51).save(root / "n2" / "c.png")
    image, _ = LabelledFolder(root, {"n2": 0}, preprocess=AsStored(stored=24))[0]
    torch.testing.assert_close(image, torch.full((3, 24, 24), 0.2))


def test_the_fingerprint_knows_files_labels_and_treatment(root):
    def fingerprint(labels, preprocess):
        return LabelledFolder(root, labels, preprocess=preprocess).fingerprint

    stored = AsStored(stored=24)
    first = fingerprint({"n1": 0, "n2": 1}, stored)
    assert first == fingerprint({"n1": 0, "n2": 1}, stored)
    others = {
        fingerprint({"n1": 1, "n2": 0}, stored),
        fingerprint({"n1": 0, "n2": 2}, stored),
        fingerprint({"n1": 0, "n2": 1}, AsStored(stored=24, size=16)),
        fingerprint({"n1": 0, "n2": 1}, Preprocess(size=24)),
    }
    Image.new("RGB", (24, 24)).save(root / "n2" / "c.png")
    others.add(fingerprint({"n1": 0, "n2": 1}, stored))
    assert len({first} | others) == 6
