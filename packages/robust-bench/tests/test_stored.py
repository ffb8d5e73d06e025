"""Corruptions that files have already."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench import Row
from robust_bench.conditions.stored import Stored
from robust_bench.families import is_corruption


def test_it_is_a_cell_of_the_corruption_table():
    condition = Stored(corruption="fog", severity=3)
    row = Row.accuracy(
        benchmark="imagenet-c", condition=condition.label, settings=condition.settings, correct=1, count=2, seconds=0
    )
    assert is_corruption(row)
    assert condition.label == "fog 3"
    assert row.settings["source"] == "files"
    assert not condition.only_right


def test_it_changes_nothing():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = Stored(corruption="fog", severity=1).change(None, images, torch.zeros(2), ImageRandom(0, torch.arange(2)))
    assert out is images


def test_there_are_five_severities():
    with pytest.raises(ValueError, match="one of 1, 2, 3, 4, 5, got 6"):
        Stored(corruption="fog", severity=6)
