"""The hash and the quantile table: against plain Python integers, and as random numbers."""

import pytest
import torch
from robust_bench.corruptions.fields import (
    fine_uniform_field,
    hashes,
    integer_field,
    normal_field,
    uniform_field,
    uniform_levels,
)
from scipy import stats

MASK = (1 << 64) - 1
KEYS = torch.arange(1, 51) * 0x1234567890ABCDE  # far apart, as those of images are: neighbours would share their hashes


def splitmix_finaliser(word: int) -> int:
    """The same hash with Python's unbounded integers (Steele, Lea & Flood 2014, Stafford's Mix13)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def test_equals_the_hash_in_unbounded_integers():
    keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF], dtype=torch.int64)
    found = hashes(keys, 5)
    for row, key in zip(found.tolist(), keys.tolist(), strict=True):
        assert [word & MASK for word in row] == [splitmix_finaliser((key + count) & MASK) for count in range(5)]


def test_the_published_vector_of_splitmix64():
    # Vigna's splitmix64.c: the first output for the state 0 is the hash of the golden gamma.
    golden = 0x9E3779B97F4A7C15 - (1 << 64)
    assert hashes(torch.tensor([golden]), 1).item() & MASK == 0xE220A8397B1DCDAF


def test_levels_are_the_four_parts_of_a_hash():
    keys = torch.tensor([5, 6])
    words = hashes(keys, 3)
    parts = [[(word >> shift) & 0xFFFF for word in row for shift in (0, 16, 32, 48)] for row in words.tolist()]
    assert uniform_levels(keys, (2, 5)).view(2, 10).tolist() == [row[:10] for row in parts]


@pytest.fixture(scope="module")
def normals():
    return normal_field(torch.arange(8) * 7919 + 12345, (1 << 17,)).double()


def test_normals_have_the_right_distribution(normals):
    values = normals.flatten()
    count = len(values)
    assert abs(values.mean()) < 4.9 / count**0.5
    assert abs(values.var() - 1) < 4.9 * (2 / count) ** 0.5
    assert abs((values**3).mean()) < 4.9 * (15 / count) ** 0.5
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-6
    assert 4.0 < values.abs().max() < 4.33
    expected = count * 2 * stats.norm.sf(3)
    assert abs((values.abs() > 3).sum() - expected) < 4.9 * expected**0.5


def test_neighbours_and_images_are_uncorrelated(normals):
    size = normals.shape[1]
    for other in (normals[:, 1:], normals[:, 2:], normals[:, 4:]):
        correlation = (normals[:, : other.shape[1]] * other).mean()
        assert abs(correlation) < 4.9 / (8 * size) ** 0.5
    between = normals @ normals.T / size
    assert (between - torch.diag(between.diag())).abs().max() < 4.9 / size**0.5


def test_bytes_are_uniform():
    levels = uniform_levels(torch.tensor([42]), (1 << 19,)).flatten()
    for part in (levels & 255, levels >> 8):
        assert stats.chisquare(torch.bincount(part, minlength=256).numpy()).pvalue > 1e-6


def test_uniform_numbers_are_the_middles_of_the_levels():
    keys = torch.tensor([5, -6])
    assert torch.equal(uniform_field(keys, (3, 7)), (uniform_levels(keys, (3, 7)) + 0.5) / 65536)


def test_fine_uniform_numbers_are_the_halves_of_a_hash():
    keys = torch.tensor([5, 6])
    parts = [[(word >> shift) & 0xFFFFFFFF for word in row for shift in (0, 32)] for row in hashes(keys, 3).tolist()]
    expected = (torch.tensor(parts, dtype=torch.float64)[:, :5] + 0.5) / 2**32
    # The upper bit is turned over, which leaves the distribution as it is.
    assert torch.equal(fine_uniform_field(keys, (5,)), (expected + 0.5) % 1.0)
    numbers = fine_uniform_field(KEYS[:50], (1000,)).flatten()
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-4, 4), (0, 5)])
def test_integers_are_uniform(low, high):
    numbers = integer_field(KEYS[:20], (10000,), low, high).flatten()
    counts = torch.bincount(numbers - low, minlength=high - low)
    assert len(counts) == high - low
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6


def test_an_image_draws_the_same_in_any_batch():
    keys = torch.tensor([3, 99, -5])
    whole = normal_field(keys, (3, 4, 4))
    for index in range(3):
        assert torch.equal(normal_field(keys[index : index + 1], (3, 4, 4)), whole[index : index + 1])
    assert torch.equal(normal_field(keys, (5, 4, 4))[:, :3], whole)
    assert normal_field(keys[:0], (3, 4, 4)).shape == (0, 3, 4, 4)
    assert fine_uniform_field(keys[:0], (1,)).shape == (0, 1)


@pytest.mark.gpu
def test_cpu_and_gpu_agree_bit_for_bit():
    keys = torch.arange(10) * 1000003
    assert torch.equal(normal_field(keys, (3, 50, 50)), normal_field(keys.cuda(), (3, 50, 50)).cpu())
