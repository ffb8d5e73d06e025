"""Attacked images: which are attacked, what is recorded, and that they stay inside."""

import math

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf, TransferAttack
from robust_bench import evaluate
from robust_bench.conditions import Attacked, Clean
from robust_bench.conditions.attack import attack_label, attack_settings, attacked

ATTACK = PGD(threat=Linf(eps=0.12), steps=5)


def helpful(model, images, labels, *, random=None):
    """An attack that makes every image right."""
    return (labels[:, None, None, None] == 1).to(images.dtype).expand_as(images)


def test_robust_accuracy_leaves_wrong_images_alone_and_other_analyses_do_not(model, grey):
    robust, every = evaluate(
        model, grey, conditions=(Attacked(attack=helpful), Attacked(attack=helpful, all_images=True))
    ).rows
    assert (robust.correct, every.correct) == (19, 21)  # two labels are wrong


def test_only_analyses_of_all_images_say_so():
    robust, every = Attacked(attack=ATTACK), Attacked(attack=ATTACK, all_images=True)
    assert (robust.only_right, every.only_right) == (True, False)
    assert every.settings == robust.settings | {"all_images": True}
    assert (robust.label, every.label) == ("PGD-5, Linf 0.12", "PGD-5, Linf 0.12, all images")


def test_an_attack_that_is_relative_to_the_image_says_of_what():
    assert attack_label(TransferAttack(relative_eps=0.04)) == "TransferAttack-10, 0.04 of the largest pixel"
    assert attack_label(TransferAttack(relative_eps=0.04, measure="range")) == "TransferAttack-10, 0.04 of the range"
    assert attack_settings(TransferAttack(relative_eps=0.04)) == {
        "attack": "TransferAttack",
        "relative_eps": 0.04,
        "measure": "image",
        "steps": 10,
        "step_size": 2 / 225,
        "unreached": "clean",
    }


class Widened(TransferAttack):
    """One that goes too far on dark images: it takes the radius from the range."""

    def __call__(self, model, images, labels, *, random=None):
        return (images + self.relative_eps).clamp(0, 1)


def test_a_threat_of_every_image_is_checked_image_by_image(model):
    images = torch.full((2, 1, 4, 4), 0.5)
    labels, random = torch.tensor([0, 1]), ImageRandom(0, torch.arange(2))
    inside = attacked(TransferAttack(relative_eps=0.5, step_size=0.1), model.eval(), images, labels, random)
    assert float((inside - images).abs().max()) <= 0.25
    assert torch.equal(attacked(Widened(relative_eps=0.1), model, torch.ones(2, 1, 4, 4), labels, random),
                       torch.ones(2, 1, 4, 4))  # fmt: skip
    with pytest.raises(RuntimeError, match=r"went too far: 0\.1 from the image, allowed is 0\.05"):
        attacked(Widened(relative_eps=0.1), model, images, labels, random)


def test_what_is_no_number_is_not_inside(model):
    broken = lambda model, images, labels, *, random=None: images * math.nan  # noqa: E731
    broken.threat = Linf(eps=0.1)
    with pytest.raises(RuntimeError, match="went too far"):
        attacked(broken, model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), ImageRandom(0, torch.arange(2)))


def test_clean_rows_are_as_before(model, grey):
    assert evaluate(model, grey, conditions=(Clean(), Attacked(attack=ATTACK))).rows[0].correct == 19
