"""Grey levels and floats."""

import numpy as np
import pytest
import torch
from robust_bench.corruptions.levels import truncate, unit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_survives(dtype):
    levels = torch.arange(256, dtype=torch.uint8)
    assert unit(levels, dtype).dtype == dtype
    assert torch.equal(truncate(unit(levels, dtype)), levels)


def test_is_numpys_truncation_in_float64():
    values = torch.rand(10000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    expected = (np.clip(values.numpy(), 0, 1) * 255).astype(np.uint8)
    assert torch.equal(truncate(values), torch.from_numpy(expected))
    single = truncate(values.float())
    assert (single.int() - torch.from_numpy(expected).int()).abs().max() <= 1
    assert (single != torch.from_numpy(expected)).double().mean() < 1e-3


def test_leaves_what_it_was_given():
    values = torch.tensor([-1.0, 0.5, 2.0])
    assert truncate(values).tolist() == [0, 127, 255]
    assert values.tolist() == [-1.0, 0.5, 2.0]
