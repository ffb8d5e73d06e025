import pytest
import torch
from robust_attacks.philox import philox


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_the_published_vectors_of_philox(counter, key, expected):
    counter = [torch.tensor([word]) for word in words_of(counter)]
    assert [int(word) for word in philox(counter, tuple(words_of(key)))] == words_of(expected)


@pytest.mark.parametrize("word", range(4))
def test_one_bit_of_the_counter_flips_half_of_the_output(word):
    """Words 0 to 3 hold the draw, the restart and target, and the two halves of the image id."""
    generator = torch.Generator().manual_seed(word)
    counter = list(torch.randint(2**32, (4, 2**16), generator=generator))
    before = torch.stack(philox(counter, (1, 2)))
    for bit in range(32):
        flipped = [c ^ (1 << bit) if place == word else c for place, c in enumerate(counter)]
        difference = torch.stack(philox(flipped, (1, 2))) ^ before
        for out in range(32):
            frequency = ((difference >> out) & 1).sum(dim=1) / 2**16
            assert float((frequency - 0.5).abs().max()) < 0.01
