"""Random numbers as functions of a position."""

import torch
from robust_train.seeds import derive, own_random_state, permutation, seed_torch


def test_seeds_differ_in_every_part_of_the_position_and_are_stable():
    positions = [(seed, use, number) for seed in range(5) for use in ("order", "update") for number in range(50)]
    seeds = {derive(*position) for position in positions}
    assert len(seeds) == len(positions)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1, "a", 23) != derive(12, "a", 3)


def test_permutations_hold_every_number_once():
    order = permutation(100, 5)
    assert order.sort().values.tolist() == list(range(100))
    assert not torch.equal(order, permutation(100, 6))
    assert torch.equal(order, permutation(100, 5))


def test_the_callers_random_state_comes_back():
    device = torch.device("cpu")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with own_random_state(device):
        seed_torch(7, device)
        inside = torch.rand(3)
        seed_torch(7, device)
        assert torch.equal(inside, torch.rand(3))
    assert torch.equal(torch.rand(3), expected)
