"""Transfer: images made on another model."""

import copy

import pytest
import torch
from robust_attacks import PGD, ImageRandom, Linf, TransferAttack, transfer
from robust_bench import evaluate
from robust_bench.conditions import Attacked, identity
from robust_bench.conditions.transferred import Transferred
from robust_bench.fingerprint import model_hash
from robust_bench.result import plain
from torch import nn

ATTACK = PGD(threat=Linf(eps=0.12), steps=5, step_size=0.05)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_from_the_model_itself_it_is_the_white_box_accuracy_on_all_images(model, grey, batch_size):
    conditions = (
        Attacked(attack=ATTACK, all_images=True),
        Transferred(attack=ATTACK, source_model=model, source_name="itself"),
    )
    white, black = evaluate(model, grey, conditions=conditions, batch_size=batch_size).rows
    assert (black.correct, black.count) == (white.correct, 21)
    assert 0 < white.correct < 19


class Inverted(nn.Module):
    """A source that is wrong about everything: what fools it makes the images easier."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return -self.model(images)


def test_the_accuracy_is_the_targets_on_what_the_source_made(model, grey):
    """From an inverted source the images move away from the threshold, so that all with right labels are right."""
    source = Inverted(copy.deepcopy(model)).train()
    row = evaluate(
        model, grey, conditions=(Transferred(attack=ATTACK, source_model=source, source_name="inverted"),)
    ).rows[0]
    assert row.correct == 19
    assert all(module.training for module in source.modules())


def test_agrees_with_the_transfer_report(model, grey):
    source = Inverted(model)
    images, labels = grey.tensors
    attack = TransferAttack(relative_eps=0.3, step_size=0.05)
    report = transfer(source.eval(), {"target": model.eval()}, images, labels, attack=attack, relative_eps=[0.3],
                      random=ImageRandom(4, torch.arange(21)))  # fmt: skip
    row = evaluate(
        model, grey, conditions=(Transferred(attack=attack, source_model=source, source_name="s"),), seed=4
    ).rows[0]
    assert row.value == report.rows[0].accuracy["target"]


def test_the_source_is_part_of_what_a_resumed_run_recognises(model):
    condition = Transferred(attack=ATTACK, source_model=model, source_name="threshold")
    assert condition.label == "PGD-5, Linf 0.12, made on threshold"
    assert condition.settings["kind"] == "transfer"
    assert condition.settings["source"] == "threshold"
    assert condition.settings["source_sha256"] == model_hash(model)
    other = copy.deepcopy(model)
    other.scale.data += 1
    changed = Transferred(attack=ATTACK, source_model=other, source_name="threshold")
    assert plain(identity(changed), "identity") != plain(identity(condition), "identity")
    assert "Threshold" not in repr(condition)


def test_one_eps_per_image_is_refused(model):
    with pytest.raises(ValueError, match="one eps for all images"):
        Transferred(attack=PGD(threat=Linf(eps=(0.1, 0.2))), source_model=model, source_name="s")
