"""Conditions: labels and settings that say everything, changes that stay in their bounds."""

from dataclasses import dataclass

import pytest
import torch
from robust_attacks import FGSM, L2, PGD, ImageRandom, Linf, margin
from robust_bench.conditions import Attacked, Clean, Corrupted
from robust_bench.corruptions import corrupt

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 1])


def test_clean_changes_nothing(model):
    assert Clean().change(model, IMAGES, LABELS, ImageRandom(0)) is IMAGES
    assert (Clean().label, Clean().settings, Clean().only_right) == ("clean", {"kind": "clean"}, False)


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (PGD(threat=Linf(eps=0.15), steps=20, restarts=3), "PGD-20 × 3, Linf 0.15"),
        (PGD(threat=Linf(eps=8 / 255), steps=10), "PGD-10, Linf 8/255"),
        (PGD(threat=L2(eps=0.5), steps=10), "PGD-10, L2 0.5"),
        (FGSM(threat=Linf(eps=0.1)), "FGSM, Linf 0.1"),
    ],
)
def test_attacks_are_named_with_what_matters(attack, label):
    assert Attacked(attack=attack).label == label


def test_an_attacks_settings_are_complete():
    attack = PGD(threat=Linf(eps=0.15), steps=7, restarts=2, step_size=0.01, loss=margin)
    assert Attacked(attack=attack).settings == {
        "kind": "attack",
        "attack": "PGD",
        "norm": "Linf",
        "eps": 0.15,
        "steps": 7,
        "restarts": 2,
        "step_size": 0.01,
        "random_start": True,
        "loss": "margin",
        "coordinates": None,
        "eot": 1,
    }


@dataclass(frozen=True)
class Step:
    """An attack of the user's own that goes `reach` up."""

    threat: Linf
    reach: float
    inner: object = None

    def __call__(self, model, images, labels, *, random=None):
        return (images + self.reach).clamp(0, 1)


def test_foreign_attacks_are_described_too():
    settings = Attacked(attack=Step(threat=Linf(eps=0.1), reach=0.1, inner=FGSM(threat=Linf(eps=0.2)))).settings
    assert (settings["attack"], settings["reach"], settings["inner"]["class"]) == ("Step", 0.1, "FGSM")
    assert Attacked(attack=lambda model, images, labels, *, random=None: images).settings["kind"] == "attack"


def test_an_attack_that_leaves_its_threat_is_an_error(model):
    random = ImageRandom(0, torch.arange(4))
    inside = Attacked(attack=Step(threat=Linf(eps=0.1), reach=0.1))
    assert float((inside.change(model, IMAGES, LABELS, random) - IMAGES).abs().max()) <= 0.1 + 1e-6
    with pytest.raises(RuntimeError, match=r"went too far: 0\.2"):
        Attacked(attack=Step(threat=Linf(eps=0.1), reach=0.2)).change(model, IMAGES, LABELS, random)


def test_one_eps_per_image_is_refused():
    with pytest.raises(ValueError, match="one eps for all images, got 2"):
        Attacked(attack=PGD(threat=Linf(eps=(0.1, 0.2))))


def test_a_corruption_is_that_of_the_rounded_bytes(model):
    condition = Corrupted(corruption="gaussian_noise", severity=4, preset="cifar")
    random = ImageRandom(5, torch.tensor([9, 2, 7, 7]))
    out = condition.change(model, IMAGES, LABELS, random)
    levels = (IMAGES * 255).round().to(torch.uint8)
    assert torch.equal(out, corrupt(levels, "gaussian_noise", 4, "cifar", seed=5, ids=random.ids) / 255)
    assert condition.label == "gaussian_noise 4"
    assert condition.settings == {
        "kind": "corruption",
        "corruption": "gaussian_noise",
        "severity": 4,
        "preset": "cifar",
        "variant": "imagenet_c",
        "source": "generated",
        "jpeg85": False,
    }


@pytest.mark.parametrize(
    "settings",
    [{"corruption": "haze"}, {"corruption": "contrast", "severity": 6}, {"corruption": "contrast", "preset": "x"}],
)
def test_unknown_corruptions_are_refused_at_once(settings):
    with pytest.raises(ValueError, match="choose from"):
        Corrupted(**settings)


def test_a_corruption_may_be_stored_as_jpeg_and_says_so(model):
    condition = Corrupted(corruption="saturate", severity=1, preset="tiny_imagenet", store_jpeg85=True)
    images = IMAGES.repeat(1, 1, 2, 2)
    out = condition.change(model, images, LABELS, ImageRandom(5, torch.arange(4)))
    levels = (images * 255).round().to(torch.uint8)
    assert torch.equal(out, corrupt(levels, "saturate", 1, "tiny_imagenet", store_jpeg85=True) / 255)
    assert condition.settings["jpeg85"] is True
