"""The condition that looks at sequences."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench import evaluate
from robust_bench.conditions import Measuring
from robust_bench.conditions.flips import FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE, Flips
from robust_bench.metrics import flip_probability, top5_distance, zipf_distance
from robust_bench.part import Benchmark, Part
from torch import nn
from torch.utils.data import TensorDataset


class Linear(nn.Module):
    """Seven logits, a fixed random projection of the image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 4 * 4, 7, generator=torch.Generator().manual_seed(1)))

    def forward(self, images):
        assert images.ndim == 4
        return (images - 0.5).flatten(1) @ self.weight


@pytest.fixture
def model():
    return Linear().eval()


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 9, 3, 4, 4, generator=generator), torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(("noise", "difficulty"), [(True, 1), (False, 1), (False, 2), (True, 3)])
def test_columns_are_the_metrics_of_the_frames(model, sequences, noise, difficulty):
    images, labels = sequences
    condition = Flips(noise=noise, difficulty=difficulty)
    assert isinstance(condition, Measuring)
    records = condition.measure(model, images, labels, ImageRandom(0, torch.arange(6)))
    with torch.no_grad():
        logits = model(images.flatten(0, 1)).unflatten(0, (6, 9))
    means = {name: column.mean().item() for name, column in records.more.items()}
    assert means == pytest.approx(
        {
            FLIPS: flip_probability(logits.argmax(-1), noise, difficulty),
            TOP5_DISTANCE: top5_distance(logits, noise, difficulty),
            ZIPF_DISTANCE: zipf_distance(logits, noise, difficulty),
        }
    )
    assert means[FLIPS] > 0
    assert torch.equal(records.predictions, logits[:, 0].argmax(-1))
    torch.testing.assert_close(records.confidences, logits[:, 0].softmax(-1).amax(-1))
    assert torch.equal(records.right, records.predictions == labels)


def test_equal_frames_do_not_flip(model, sequences):
    images, labels = sequences
    still = images[:, :1].expand_as(images)
    records = Flips(noise=False).measure(model, still, labels, ImageRandom(0, torch.arange(6)))
    assert all(bool((column == 0).all()) for column in records.more.values())


def test_the_engine_takes_sequences_in_any_batch_size(model, sequences):
    condition = Flips(noise=False, perturbation="tilt")
    kept = []

    def keep(found):
        kept.append(found["tilt"][0])
        return ()

    part = Part(name="tilt", data=TensorDataset(*sequences), conditions=(condition,), num_classes=7)
    for batch_size in (6, 4):
        evaluate(model, Benchmark(name="p", parts=(part,), scores=keep), batch_size=batch_size)
    first, second = kept
    for column in (FLIPS, TOP5_DISTANCE, ZIPF_DISTANCE):
        assert first.more[column].tolist() == pytest.approx(second.more[column].tolist(), abs=2e-6)
    assert first.settings == {"kind": "sequence", "perturbation": "tilt", "noise": False, "difficulty": 1}


def test_one_frame_has_nothing_to_be_compared_with(model, sequences):
    images, labels = sequences
    with pytest.raises(ValueError, match="at least 2 frames"):
        Flips(noise=False).measure(model, images[:, :1], labels, ImageRandom(0, torch.arange(6)))


def test_a_model_without_logits_is_refused(sequences):
    images, labels = sequences
    with pytest.raises(ValueError, match="one row per image"):
        Flips(noise=False).measure(lambda frames: frames, images, labels, ImageRandom(0, torch.arange(6)))


def test_labels_and_settings_name_the_perturbation():
    assert Flips(noise=True, perturbation="shot_noise", difficulty=3).label == "shot_noise, difficulty 3, first frame"
    assert Flips(noise=False, perturbation="tilt").label == "tilt, first frame"
    with pytest.raises(ValueError, match="difficulty must be at least 1"):
        Flips(noise=False, difficulty=0)
