"""Data sets of sequences that are made from images, and whole images of one short side."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions.sequences import sequence
from robust_bench.datasets import Sequences
from robust_bench.datasets.short_side import ShortSide
from robust_bench.preprocess import AsStored
from torch.utils.data import Dataset, TensorDataset


class Pictures(Dataset):
    """Images of different sizes, with names."""

    sizes = ((256, 300), (310, 256), (224, 224))

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, *self.sizes[index]), generator=generator) / 255, 10 * index

    def filename(self, index):
        return f"{index}.png"


@pytest.mark.parametrize("name", ["translate", "shot_noise"])
def test_images_of_any_size_give_frames_of_one(name):
    data = Sequences(Pictures(), name, difficulty=2, seed=3)
    assert len(data) == 3
    for index in range(3):
        image, label = Pictures()[index]
        frames, found = data[index]
        assert (found, frames.dtype) == (label, torch.float32)
        levels = image.mul(255).round().to(torch.uint8)[None]
        expected = sequence(levels, name, difficulty=2, seed=3, ids=torch.tensor([index]))[0]
        assert torch.equal(frames, expected / 255)
        assert frames.shape[1:] == (3, 224, 224)


def test_frames_are_resized_as_stored_ones_are(pictures):
    images, labels = pictures(count=2), torch.tensor([0, 1])
    plain = TensorDataset(images / 255, labels)
    large = Sequences(plain, "rotate", preset="cifar", preprocess=AsStored(stored=32, size=48))
    frames, _ = large[1]
    assert frames.shape == (31, 3, 48, 48)
    picture = Image.fromarray(images[1].permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BILINEAR)
    assert torch.equal(frames[15], torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
    same = Sequences(plain, "rotate", preset="cifar", preprocess=AsStored(stored=32))
    assert torch.equal(same[0][0], Sequences(plain, "rotate", preset="cifar")[0][0])


def test_names_are_those_of_the_images_where_they_have_some(pictures):
    assert Sequences(Pictures(), "tilt").filename(2) == "2.png"
    assert not hasattr(Sequences(TensorDataset(pictures() / 255), "tilt"), "filename")


def test_another_way_of_making_frames_has_another_fingerprint():
    data = Pictures()
    ways = [
        Sequences(data, "tilt"),
        Sequences(data, "rotate"),
        Sequences(data, "tilt", preset="cifar"),
        Sequences(data, "tilt", difficulty=2),
        Sequences(data, "tilt", seed=1),
        Sequences(data, "tilt", preprocess=AsStored(stored=224, size=64)),
    ]
    assert len({way.fingerprint for way in ways}) == len(ways)
    assert Sequences(data, "tilt").fingerprint == ways[0].fingerprint


def test_mistakes_are_refused(pictures):
    with pytest.raises(ValueError, match="unknown sequence 'fog'"):
        Sequences(Pictures(), "fog")
    with pytest.raises(ValueError, match="difficulty"):
        Sequences(Pictures(), "tilt", difficulty=0)
    small = Sequences(TensorDataset(pictures() / 255, torch.arange(5)), "tilt")
    with pytest.raises(ValueError, match="need images of 224 pixels a side or more"):
        small[0]


@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (256, 341)), ((375, 500), (341, 256)), ((100, 100), (256, 256))]
)
def test_the_shorter_side_is_resized_and_nothing_cut_off(size, expected):
    picture = Image.effect_noise(size, 60).convert("RGB")
    found = ShortSide(side=256).transform()(picture)
    assert found.dtype == torch.uint8
    assert found.shape == (3, *expected)
    torchvision = pytest.importorskip("torchvision.transforms")
    resized = torchvision.Resize(256)(picture)
    assert torch.equal(found, torch.from_numpy(np.array(resized)).permute(2, 0, 1))


def test_a_short_side_says_what_it_does():
    assert ShortSide(side=256).settings == {"side": 256, "steps": "Resize(256, bilinear)"}
    picture = Image.effect_noise((40, 32), 60).convert("RGB")
    assert torch.equal(ShortSide(side=32)(picture), torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        ShortSide(side=0)
