"""Counting right answers on the images of a folder."""

import math

import pytest
import torch
from PIL import Image
from robust_models.accuracy_check import Accuracy, labelled_images, measure
from torch import nn
from torchvision.transforms.functional import to_tensor

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


class Brightest(nn.Module):
    """Answers with the brightest channel, so it knows red, green and blue images."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.mean((2, 3))


@pytest.fixture
def folder(tmp_path):
    """Ten images per class; of red, one in ten is green."""
    for label, name in enumerate(("a", "b", "c")):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for number in range(10):
            colour = COLOURS[1] if (label, number) == (0, 3) else COLOURS[label]
            image = Image.new("RGB", (5, 4), colour)
            image.save(tmp_path / name / ("deeper" if number % 2 else "") / f"{number}.png")
        (tmp_path / name / "notes.txt").write_text("no image")
    return tmp_path


def test_right_answers_are_counted(folder):
    images = labelled_images(folder, 3)
    assert len(images) == 30
    found = measure(Brightest(), to_tensor, images, printed=97.0, batch_size=7)
    assert (found.images, found.correct, found.printed) == (30, 29, 97.0)
    assert found.measured == pytest.approx(100 * 29 / 30)
    few = [measure(Brightest(), to_tensor, images, limit=10, seed=seed).correct for seed in range(20)]
    assert set(few) == {9, 10}
    assert few == [measure(Brightest(), to_tensor, images, limit=10, seed=seed).correct for seed in range(20)]


def test_grey_images_and_palettes_become_rgb(tmp_path):
    for label, mode in enumerate(("L", "P", "RGBA")):
        (tmp_path / str(label)).mkdir()
        Image.new("RGB", (4, 4), COLOURS[label]).convert(mode).save(tmp_path / str(label) / "0.png")
    assert measure(Brightest(), to_tensor, labelled_images(tmp_path, 3)).images == 3


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (10, 10), (67, 100), (500, 1000)])
def test_the_interval_is_where_the_score_test_does_not_reject(correct, images):
    for bound in Accuracy(images=images, correct=correct, printed=None).interval:
        share = bound / 100
        deviation = abs(correct / images - share)
        assert deviation == pytest.approx(2.5758293 * math.sqrt(share * (1 - share) / images), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("printed", "agrees"), [(70.0, True), (56.0, True), (50.0, False), (90.0, False), (None, None)]
)
def test_the_printed_accuracy_agrees_inside_the_interval(printed, agrees):
    assert Accuracy(images=100, correct=67, printed=printed).agrees is agrees


def test_folders_tell_the_classes(tmp_path):
    for name in ("n01443537", "n15075141"):
        (tmp_path / "wordnet" / name).mkdir(parents=True)
        (tmp_path / "wordnet" / name / "0.JPEG").touch()
    assert [label for _, label in labelled_images(tmp_path / "wordnet", 1000)] == [1, 999]
    for number in range(11):
        (tmp_path / "numbers" / str(number)).mkdir(parents=True)
        (tmp_path / "numbers" / str(number) / "0.png").touch()
    found = labelled_images(tmp_path / "numbers", 11)
    assert [(path.parent.name, label) for path, label in found] == [(str(n), n) for n in range(11)]


def test_folders_that_do_not_tell_the_classes(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        labelled_images(tmp_path / "none", 2)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="has 1 folders and the model 2 classes"):
        labelled_images(tmp_path, 2)
    (tmp_path / "n01443537").mkdir()
    with pytest.raises(ValueError, match="has 2 folders and the model 1000 classes"):
        labelled_images(tmp_path, 1000)
    with pytest.raises(FileNotFoundError, match="have no images"):
        labelled_images(tmp_path, 2)
