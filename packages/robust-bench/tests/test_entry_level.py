"""The 16 classes, and decisions among them against a slow definition."""

import math
import random

import numpy as np
import pytest
import torch
from robust_bench.metrics.entry_level import ENTRY_LEVEL_CLASSES, decide
from timm.data import ImageNetInfo

NAMES = list(ENTRY_LEVEL_CLASSES)
OTHERS = sorted(set(range(1000)) - {index for indices in ENTRY_LEVEL_CLASSES.values() for index in indices})


def test_there_are_16_classes_in_alphabetical_order_with_207_indices():
    assert len(NAMES) == 16
    assert sorted(NAMES) == NAMES
    indices = [index for some in ENTRY_LEVEL_CLASSES.values() for index in some]
    assert len(indices) == len(set(indices)) == 207
    assert all(list(some) == sorted(some) for some in ENTRY_LEVEL_CLASSES.values())
    assert all(0 <= index < 1000 for index in indices)
    assert {name: len(some) for name, some in ENTRY_LEVEL_CLASSES.items()} == {
        "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6, "chair": 4,
        "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("airplane", "airliner"),
        ("bear", "bear"),
        ("bicycle", "bike|bicycle"),
        ("cat", "cat|cougar|lynx|leopard|jaguar|lion|tiger|cheetah"),
        ("clock", "clock"),
        ("elephant", "elephant|tusker"),
        ("keyboard", "keyboard"),
        ("knife", "cleaver"),
        ("oven", "rotisserie"),
    ],
)
def test_the_indices_are_those_of_the_usual_order(name, words):
    info = ImageNetInfo()
    for index in ENTRY_LEVEL_CLASSES[name]:
        assert any(word in info.index_to_description(index).lower() for word in words.split("|")), index


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_agrees_with_the_definition(aggregation, scale):
    rng = random.Random(3)
    logits = [[scale * rng.gauss(0, 1) for _ in range(1000)] for _ in range(60)]
    expected = []
    for row in logits:
        total = sum(math.exp(value) for value in row)
        scores = {}
        for name, indices in ENTRY_LEVEL_CLASSES.items():
            probabilities = [math.exp(row[index]) / total for index in indices]
            scores[name] = sum(probabilities) / len(probabilities) if aggregation == "mean" else max(probabilities)
        expected.append(max(scores, key=scores.__getitem__))
    assert len(set(expected)) > 1
    assert decide(logits, aggregation=aggregation) == expected


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_every_class_can_win(aggregation):
    logits = torch.zeros(16, 1000)
    for row, indices in enumerate(ENTRY_LEVEL_CLASSES.values()):
        logits[row, list(indices)] = 1.0
    assert decide(logits, aggregation) == NAMES


def test_the_two_aggregations_differ():
    logits = np.zeros((1, 1000))
    logits[0, 152] = 3.0  # one dog of 109
    logits[0, 766] = 1.0  # the only oven
    assert decide(logits) == ["oven"]
    assert decide(logits, "max") == ["dog"]


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_the_first_wins_among_equals(aggregation):
    logits = np.zeros((3, 1000))
    logits[1, [499, 766]] = 1.0
    logits[2, [404, 766]] = -1.0
    assert decide(logits, aggregation) == ["airplane", "knife", "bear"]


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_other_classes_never_matter_however_likely(aggregation):
    logits = np.random.default_rng(0).normal(size=(20, 1000))
    expected = decide(logits, aggregation)
    logits[:, OTHERS] += 5000.0  # the softmax of all 207 underflows
    assert decide(logits, aggregation) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_takes_tensors_of_any_precision(aggregation, dtype):
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert decide(logits, aggregation) == decide(logits.double().numpy(), aggregation)


@pytest.mark.parametrize(
    ("logits", "kind", "message"),
    [
        (np.zeros((2, 200)), ValueError, "logits must have the 1000 columns of ImageNet, got 200"),
        (np.zeros(1000), ValueError, r"logits must have the shape \(N, K\), one row per image, got \(1000,\)"),
        (np.zeros((0, 1000)), ValueError, "logits is empty"),
        (np.full((1, 1000), np.nan), ValueError, "logits holds NaN, in 1000 of 1000 values"),
        (np.full((1, 1000), np.inf), ValueError, "logits must be finite, got infinite values"),
        ([["dog"] * 1000], TypeError, "logits must be real numbers, got text"),
    ],
)
def test_refuses_what_are_no_imagenet_logits(logits, kind, message):
    with pytest.raises(kind, match=message):
        decide(logits)


def test_refuses_an_unknown_aggregation():
    with pytest.raises(ValueError, match="aggregation must be 'mean' or 'max', got 'sum'"):
        decide(np.zeros((1, 1000)), aggregation="sum")


def test_the_classes_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        ENTRY_LEVEL_CLASSES["whale"] = (147,)
