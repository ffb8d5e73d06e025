"""Draws: saved, sliced, joined."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import Draws, sample


def test_survive_a_file(tmp_path):
    draws = sample("gaussian_noise", 3, (2, 3, 8, 8), random=ImageRandom(0), preset="cifar")
    torch.save(draws, tmp_path / "draws.pt")
    found = torch.load(tmp_path / "draws.pt", weights_only=True)
    assert len(found) == 2
    assert torch.equal(found.fields["normal"], draws.fields["normal"])


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2, 4]),
        (slice(4, 9), [4]),
        (torch.tensor([3, 3, 0]), [3, 3, 0]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
    ],
    ids=str,
)
def test_are_sliced_like_a_tensor(index, expected):
    draws = Draws(count=5, fields={"number": torch.arange(5), "square": torch.arange(5) ** 2})
    assert draws[index].fields["number"].tolist() == expected
    assert draws[index].fields["square"].tolist() == [number**2 for number in expected]
    assert len(draws[index]) == len(expected)
    assert len(Draws(count=5, fields={})[index]) == len(expected)


def test_are_joined_in_order():
    first, second = (Draws(count=count, fields={"number": torch.arange(count)}) for count in (2, 3))
    joined = Draws.joined([first, second])
    assert len(joined) == 5
    assert joined.fields["number"].tolist() == [0, 1, 0, 1, 2]


def test_refuse_a_field_of_another_length():
    with pytest.raises(ValueError, match="first axis"):
        Draws(count=2, fields={"normal": torch.zeros(3)})
