"""How work is divided."""

import pytest
import torch
from robust_bench.world import World, local_device


def test_separate_jobs_take_every_shard_once_whenever_they_look():
    shares = [World(rank=rank, size=3).share(list(range(10))) for rank in range(3)]
    assert sorted(shard for share in shares for shard in share) == list(range(10))
    assert World(rank=1, size=3).share([0, 3, 4, 9]) == [4]  # what is left of its own


def test_one_process_takes_all():
    assert World.current() == World() == World(rank=0, size=1)
    assert World().share([2, 5]) == [2, 5]
    World().wait()


@pytest.mark.parametrize("text", ["", "3", "a/b", "-1/2", "1/", "1.0/2"])
def test_a_part_is_i_of_n(text):
    with pytest.raises(ValueError, match="a part must be i/n"):
        World.parse(text)


@pytest.mark.parametrize("text", ["2/2", "0/0"])
def test_a_part_counts_from_zero(text):
    with pytest.raises(ValueError, match="with 0 <= i < n"):
        World.parse(text)


def test_every_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch):
    assert local_device(torch.device("cuda")) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert local_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert local_device(torch.device("cpu")) == torch.device("cpu")
