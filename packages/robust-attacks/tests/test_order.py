"""The k-th largest number of a row equals that of a sorted row, to the bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import _host
from robust_attacks._order import kth_largest


@pytest.fixture(params=[True, False], ids=["the host looks", "the host must not look"])
def looks(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(_host, "can_look", lambda tensor: False)


def values_of(count, numbers, seed, dtype, decimals, exponent):
    """Non-negative numbers, some of them zero, with ties if rounded to few decimals, at all scales."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, numbers), generator=generator, dtype=dtype).abs()
    values = values if decimals is None else values.round(decimals=decimals)
    return torch.where(torch.rand(values.shape, generator=generator) < 0.1, 0, values) * 10.0**exponent


@given(
    count=st.integers(1, 4),
    numbers=st.sampled_from([1, 2, 3, 17, 100, 1000]),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    decimals=st.sampled_from([None, 1, 0]),
    exponent=st.sampled_from([-44, -30, 0, 30]),
    few=st.booleans(),
    look=st.booleans(),
)
def test_it_is_the_number_at_that_place_of_the_sorted_row(count, numbers, seed, dtype, decimals, exponent, few, look):
    values = values_of(count, numbers, seed, dtype, decimals, exponent)
    most = max(numbers // 5, 1) if few else numbers
    rank = torch.randint(1, most + 1, (count,), generator=torch.Generator().manual_seed(seed + 1))
    before = values.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "can_look", lambda tensor: look)
        found = kth_largest(values, rank)
    expected = [sorted(row, reverse=True)[place - 1] for row, place in zip(values.tolist(), rank.tolist(), strict=True)]
    assert found.dtype == dtype
    assert found.shape == (count,)
    assert found.tolist() == expected
    assert torch.equal(values, before)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_the_last_and_the_extremes(dtype):
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    values = torch.tensor([[0.0, largest, smallest, 1.0]] * 4, dtype=dtype)
    found = kth_largest(values, torch.tensor([1, 2, 3, 4]))
    assert found.tolist() == [largest, 1.0, smallest, 0.0]


@pytest.mark.usefixtures("looks")
def test_no_rows_have_none():
    assert kth_largest(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_more_numbers_than_can_be_counted_are_refused():
    with pytest.raises(ValueError, match="images of 16777216 numbers are too large for L1"):
        kth_largest(torch.zeros(1, 1).expand(1, 2**24), torch.tensor([1]))
