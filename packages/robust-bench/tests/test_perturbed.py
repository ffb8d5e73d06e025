"""The condition that makes sequences and compares their frames."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench import evaluate
from robust_bench.conditions import Flips, Measuring, Perturbed
from robust_bench.conditions.flips import FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE
from robust_bench.corruptions.sequences import count, is_noise, sequence
from robust_bench.part import Benchmark, Part
from torch import nn
from torch.utils.data import TensorDataset

COLUMNS = (FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE)


class Linear(nn.Module):
    """Seven logits, a fixed random projection of the image; it keeps the sizes of its batches."""

    def __init__(self, side=32):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3 * side * side, 7, generator=generator, dtype=torch.float64))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return ((images.double() - 0.5).flatten(1) @ self.weight).float()


@pytest.fixture
def model():
    return Linear().eval()


@pytest.fixture
def data(pictures):
    return pictures(count=6), torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("name", "difficulty"),
    [("gaussian_noise", 1), ("shot_noise", 3), ("rotate", 1), ("translate", 2), ("spatter", 1), ("zoom_blur", 3)],
)
def test_it_measures_what_flips_does_on_the_same_frames(model, data, name, difficulty):
    images, labels = data
    random = ImageRandom(123, torch.tensor([3, 9, 4, 0, 1, 2]))
    condition = Perturbed(perturbation=name, preset="cifar", difficulty=difficulty, seed=5)
    assert isinstance(condition, Measuring)
    found = condition.measure(model, images / 255, labels, random)
    assert model.batches == [6] * count(name, "cifar")  # one frame at a time
    made = sequence(images, name, "cifar", difficulty, seed=5, ids=random.ids)
    expected = Flips(noise=is_noise(name), difficulty=difficulty).measure(model, made / 255, labels, random)
    assert torch.equal(found.predictions, expected.predictions)
    assert torch.equal(found.right, expected.right)
    torch.testing.assert_close(found.confidences, expected.confidences)
    for column in COLUMNS:
        torch.testing.assert_close(found.more[column], expected.more[column])
    assert found.more[TOP5_DISTANCE].mean() > 0


def test_the_engine_gives_the_same_in_any_batch_size(model, data):
    images, labels = data
    part = Part(
        name="p/gaussian_noise",
        data=TensorDataset(images / 255, labels),
        conditions=(Perturbed(perturbation="gaussian_noise", preset="cifar"),),
        num_classes=7,
    )
    kept = []

    def keep(found):
        kept.append(found["p/gaussian_noise"][0])
        return ()

    for batch_size, seed in ((6, 0), (4, 0), (1, 8)):  # nor does the seed of the evaluation matter
        evaluate(model, Benchmark(name="p", parts=(part,), scores=keep), batch_size=batch_size, seed=seed)
    for other in kept[1:]:
        for column in COLUMNS:
            assert kept[0].more[column].tolist() == pytest.approx(other.more[column].tolist(), abs=2e-6)
    assert kept[0].settings == {
        "kind": "sequence",
        "perturbation": "gaussian_noise",
        "noise": True,
        "difficulty": 1,
        "source": "generated",
        "preset": "cifar",
        "seed": 0,
        "published": kept[0].settings["published"],
    }


def test_whole_images_are_shown_by_their_centre(pictures):
    model = Linear(224).eval()
    images = pictures(count=2, size=(230, 256)) / 255
    found = Perturbed(perturbation="brightness").measure(model, images, torch.tensor([0, 1]), ImageRandom(0, None))
    assert model.batches == [2] * 31
    assert len(found) == 2


def test_settings_and_labels_say_what_is_done():
    condition = Perturbed(perturbation="shot_noise", difficulty=2, seed=4)
    assert condition.label == "shot_noise, difficulty 2, first frame"
    assert condition.settings["seed"] == 4
    assert "H.264 videos" in condition.settings["published"]
    assert "equal pixels are impossible" in condition.settings["published"]
    assert not condition.only_right
    images = torch.rand(2, 3, 32, 32)
    assert condition.change(None, images, None, None) is images


def test_mistakes_are_refused(model, data):
    for arguments, words in (
        ({"perturbation": "fog"}, "unknown sequence"),
        ({"perturbation": "tilt", "preset": "tiny_imagenet"}, "unknown preset"),
        ({"perturbation": "tilt", "difficulty": 4}, "difficulty must be one of 1, 2, 3"),
    ):
        with pytest.raises(ValueError, match=words):
            Perturbed(**arguments)
    images, labels = data
    with pytest.raises(ValueError, match="224 pixels a side or more, got 32 x 32"):
        Perturbed(perturbation="tilt").measure(model, images / 255, labels, ImageRandom(0, torch.arange(6)))
    with pytest.raises(ValueError, match="one row per image"):
        Perturbed(perturbation="tilt", preset="cifar").measure(
            lambda frames: frames, images / 255, labels, ImageRandom(0, torch.arange(6))
        )
