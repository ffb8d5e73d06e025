"""The distributions that are drawn from a generator, against their exact distribution functions."""

import math

import pytest
import torch
from robust_augs._random import beta, dirichlet, gamma, integers

COUNT = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distance(draws, distribution_function):
    """The statistic of Kolmogorov and Smirnov, times sqrt(n); above 1.95 in one of a thousand samples."""
    draws = draws.double().flatten().sort().values
    steps = torch.arange(len(draws) + 1, dtype=torch.float64) / len(draws)
    expected = distribution_function(draws)
    return math.sqrt(len(draws)) * max((expected - steps[:-1]).max().item(), (steps[1:] - expected).max().item())


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.5])
def test_gamma(alpha):
    draws = gamma((COUNT,), alpha, generator(), "cpu")
    shape = torch.tensor(alpha, dtype=torch.float64)
    assert distance(draws, lambda x: torch.special.gammainc(shape.expand_as(x), x)) < 1.95


@pytest.mark.parametrize(
    ("a", "b", "distribution_function"),
    [
        (1.0, 1.0, lambda x: x),
        (0.5, 0.5, lambda x: 2 / math.pi * x.sqrt().asin()),
        (3.0, 1.0, lambda x: x**3),
        (1.0, 2.0, lambda x: 1 - (1 - x) ** 2),
    ],
)
def test_beta(a, b, distribution_function):
    draws = beta((COUNT,), a, b, generator(), "cpu")
    assert draws.dtype == torch.float32
    assert distance(draws, distribution_function) < 1.95


@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_dirichlet(alpha):
    draws = dirichlet((COUNT, 3), alpha, generator(), "cpu")
    torch.testing.assert_close(draws.sum(dim=1), torch.ones(COUNT))
    variance = (1 / 3) * (2 / 3) / (3 * alpha + 1)
    assert ((draws.mean(dim=0) - 1 / 3).abs() < 4 * math.sqrt(variance / COUNT)).all()
    torch.testing.assert_close(draws.var(dim=0), torch.full((3,), variance), rtol=0.05, atol=0)
    if alpha == 1.0:  # each weight is then Beta(1, 2)
        assert all(distance(column, lambda x: 1 - (1 - x) ** 2) < 1.95 for column in draws.unbind(1))


def test_small_parameters_do_not_end_in_ties_of_the_smallest_number():
    weights = dirichlet((COUNT, 2), 0.02, generator(), "cpu")
    share = beta((COUNT,), 0.02, 0.02, generator(), "cpu")
    for draws in (weights[:, 0], share):  # in float32 both terms would be the smallest number in 3 % of the draws
        assert draws.isfinite().all()
        assert (draws == 0.5).float().mean() < 1e-3


def test_integers_are_uniform_and_include_both_ends():
    counts = integers((COUNT,), 1, 4, generator(), "cpu").bincount().tolist()
    assert counts[0] == 0
    assert len(counts) == 5
    chi_square = sum((count - COUNT / 4) ** 2 / (COUNT / 4) for count in counts[1:])
    assert chi_square < 16.3  # three degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: gamma((5,), 0.7, g, "cpu"),
        lambda g: beta((5,), 0.5, 0.5, g, "cpu"),
        lambda g: dirichlet((2, 3), 1.0, g, "cpu"),
        lambda g: integers((5,), 0, 1000, g, "cpu"),
    ],
    ids=["gamma", "beta", "dirichlet", "integers"],
)
def test_the_generator_alone_decides(draw):
    before = torch.get_rng_state()
    first = draw(generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draw(generator(3)), first)
    assert not torch.equal(draw(generator(4)), first)
