"""Contrast: the published bytes, and the formula."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions import corrupt


@pytest.mark.shared_data
@pytest.mark.parametrize("precision", ["float32", "double"])
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_bytes_are_the_published_ones(published, severity, preset, precision):
    clean, expected, _ = published("contrast", severity, preset)
    assert torch.equal(corrupt(clean, "contrast", severity, preset, precision=precision), expected)


def test_equals_the_formula_in_numpy(pictures):
    images = pictures(size=(13, 29))
    x = images.numpy() / 255.0
    mean = x.mean(axis=(2, 3), keepdims=True)
    expected = (np.clip((x - mean) * 0.4 + mean, 0, 1) * 255).astype(np.uint8)
    assert torch.equal(corrupt(images, "contrast", 3, "cifar"), torch.from_numpy(expected))
