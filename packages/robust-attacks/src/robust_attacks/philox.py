"""Philox-4x32-10, the generator behind `ImageRandom`."""

from collections.abc import Sequence

from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Sequence[Tensor | int], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four random 32-bit words for every counter.

    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Integers below 2^32 are held in
    int64; products wrap modulo 2^64 on every device, and the mask makes the arithmetic shift a logical one.

    Args:
        counter: four words, int64 tensors that broadcast against each other (or ints), each in [0, 2^32); the first
            and the third must be tensors.
        key: two ints in [0, 2^32).

    Examples:
        >>> import torch
        >>> zero = torch.zeros(1, dtype=torch.int64)
        >>> [f"{int(word):08x}" for word in philox((zero, zero, zero, zero), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p, q = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # c1 and c3 are the low halves of the last products; one mask will do for these and for the high halves.
        c0, c2 = _mixed(q, c1, k0), _mixed(p, c3, k1)
        c1, c3 = q, p
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1 & _WORD, c2, c3 & _WORD  # type: ignore[return-value]  # tensors after the first round


def _mixed(product: Tensor | int, word: Tensor | int, key: int) -> Tensor | int:
    """The high half of a product, xor a word, xor a key."""
    mixed = (product >> 32) ^ word
    mixed ^= key
    mixed &= _WORD
    return mixed
