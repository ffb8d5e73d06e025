"""Perturbations as images, on linear models where they are known."""

import pytest
import torch
from robust_attacks import L2, PGD, ImageRandom, Linf
from robust_bench import evaluate
from robust_bench.conditions.semantic import Resized, Semantic, judged_column
from torch import nn
from torch.utils.data import TensorDataset

EPS = 0.1
ATTACK = PGD(threat=Linf(eps=EPS), steps=8, step_size=1.5 * EPS / 8, random_start=False)


class Templates(nn.Module):
    """The class whose template fits best."""

    def __init__(self, templates, classes=(0, 1, 2)):
        super().__init__()
        self.templates = nn.Parameter(templates)
        self.classes = classes

    def forward(self, images):
        return (images.flatten(1) @ self.templates.flatten(1).T)[:, list(self.classes)]


@pytest.fixture
def templates():
    """Three templates, each of which is bright in a third of the image of its own and dark elsewhere."""
    third = torch.full((3, 1, 6, 6), -0.5)
    for label in range(3):
        third[label, :, 2 * label : 2 * label + 2] = 1.0
    return third


@pytest.fixture
def data(templates):
    """Grey images with a faint template each: an attack of 0.1 fools the model on all of them."""
    labels = torch.arange(12) % 3
    noise = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(0.5 + 0.03 * templates[labels] + 0.02 * noise, labels)


def test_bright_is_where_the_attack_has_darkened(templates, data):
    """Of two opposite templates it takes away that of the label, whose shape is what is to be seen."""
    model = Templates(torch.stack((templates[0], -templates[0])), (0, 1)).eval()
    images, labels = torch.full((2, 1, 6, 6), 0.5), torch.tensor([0, 1])
    shown = Semantic(attack=ATTACK, judges={"model": model}).change(model, images, labels, ImageRandom(0))
    torch.testing.assert_close(shown[0], (templates[0] > 0).float())
    torch.testing.assert_close(shown[1], (templates[0] < 0).float())


def test_what_stays_is_grey(templates):
    images = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(2))

    def nothing(model, images, labels, *, random=None):
        return images.clone()

    nothing.threat = Linf(eps=EPS)
    shown = Semantic(attack=nothing, judges={"a": torch.sin}).change(None, images, torch.arange(3), ImageRandom(0))
    torch.testing.assert_close(shown, torch.full_like(images, 128 / 255))  # 127.5 rounds to the even number


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_judge_sees_the_true_class_which_the_attack_moves_away_from(templates, data, batch_size):
    model = Templates(templates).eval()
    judges = {"same": Templates(templates).train(), "shifted": Templates(templates, (1, 2, 0))}
    condition = Semantic(attack=ATTACK, judges=judges)
    images, labels = data.tensors
    for rows in torch.arange(12).split(batch_size):
        found = condition.measure(model, images[rows], labels[rows], ImageRandom(0, rows))
        assert torch.equal(found.more[judged_column("same")], labels[rows])
        assert torch.equal(found.more[judged_column("shifted")], (labels[rows] + 2) % 3)
        assert not found.right.any()
        assert bool((found.predictions != labels[rows]).all())
    assert judges["same"].training


def test_the_row_of_the_condition_is_a_robust_accuracy(templates, data):
    model = Templates(templates)
    weak = PGD(threat=Linf(eps=0.001), steps=2, random_start=False)
    strong, faint = (
        evaluate(model, data, conditions=(Semantic(attack=attack, judges={"judge": model}),)).rows[0]
        for attack in (ATTACK, weak)
    )
    assert (strong.correct, faint.correct) == (0, 12)


def test_images_have_eight_bits(templates, data):
    model = Templates(templates).eval()
    images, labels = data.tensors
    attack = PGD(threat=Linf(eps=EPS), steps=1, step_size=0.03)
    shown = Semantic(attack=attack, judges={"judge": model}).change(model, images, labels, ImageRandom(0))
    levels = shown * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert len(levels.round().unique()) > 20


def test_a_judge_of_another_size_sees_resized_images():
    judge = Resized(nn.Flatten(), 4)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert judge(images).shape == (2, 16)
    assert torch.equal(Resized(nn.Flatten(), 8)(images), images.flatten(1))
    torch.testing.assert_close(judge(torch.full((1, 1, 8, 8), 0.3)), torch.full((1, 16), 0.3))


def test_settings_name_the_judges_and_the_sign(templates):
    model = Templates(templates)
    settings = Semantic(attack=ATTACK, judges={"a": model, "b": torch.sin}).settings
    assert settings["kind"] == "semantic"
    assert settings["image"].startswith("(x - x_adv + eps) / (2 eps)")
    assert list(settings["judges"]) == ["a", "b"]
    assert len(settings["judges"]["a"]) == 64


@pytest.mark.parametrize("threat", [L2(eps=0.5), Linf(eps=0.0)])
def test_only_linf_makes_an_image(threat):
    with pytest.raises(ValueError, match="by its Linf eps"):
        Semantic(attack=PGD(threat=threat), judges={"a": torch.sin})


def test_there_must_be_a_judge():
    with pytest.raises(ValueError, match="at least one classifier"):
        Semantic(attack=ATTACK, judges={})
