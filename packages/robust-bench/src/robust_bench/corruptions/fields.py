"""Random fields, expanded from one 64-bit key per image by a cheap hash.

Philox, which `ImageRandom` uses for the key, costs several times `torch.rand` when it fills whole images. Here a key
plus a counter goes through the 64-bit finaliser of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014; multipliers of Stafford's Mix13), written in int64 operations, which wrap. Each hash
gives four 16-bit uniforms. Integer arithmetic and a table look-up give the same bits on every device.
"""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 1 << 16

# The multipliers 0xbf58476d1ce4e5b9 and 0x94d049bb133111eb as signed 64-bit numbers.
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_LAST_SHIFT = 31


def hashes(keys: Tensor, count: int) -> Tensor:
    """Hash `keys` (N,) int64 with the counters 0..count-1; int64 (N, count) of 64 random bits come back."""
    bits, shifted = (keys.new_empty(len(keys), count) for _ in range(2))
    if keys.device.type == "cpu":
        _hash_by_numpy(*(numbers.numpy().view(np.uint64) for numbers in (keys.contiguous(), bits, shifted)))
        return bits
    torch.add(keys[:, None], _counters(count, keys.device), out=bits)
    for shift, multiplier in _MULTIPLIERS:
        torch.bitwise_right_shift(bits, shift, out=shifted)
        shifted.bitwise_and_((1 << (64 - shift)) - 1)  # the shift of a negative number brings in ones
        bits.bitwise_xor_(shifted).mul_(multiplier)
    torch.bitwise_right_shift(bits, _LAST_SHIFT, out=shifted)
    shifted.bitwise_and_((1 << (64 - _LAST_SHIFT)) - 1)
    return bits.bitwise_xor_(shifted)


def _hash_by_numpy(keys: NDArray[np.uint64], bits: NDArray[np.uint64], shifted: NDArray[np.uint64]) -> None:
    """Do the same with unsigned numbers, which torch does not multiply, into `bits`: a third faster on a CPU."""
    np.add(keys[:, None], _unsigned_counters(bits.shape[1]), out=bits)
    for shift, multiplier in _MULTIPLIERS:
        np.right_shift(bits, shift, out=shifted)
        bits ^= shifted
        bits *= np.uint64(multiplier + (1 << 64))
    np.right_shift(bits, _LAST_SHIFT, out=shifted)
    bits ^= shifted


def uniform_levels(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw int32 levels 0..65535, uniform, shape (N, *shape)."""
    return _words(keys, math.prod(shape)).to(torch.int32).view(len(keys), *shape)


def uniform_field(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw float32 numbers in (0, 1), shape (N, *shape): the middles of 65,536 equal steps."""
    levels = _words(keys, math.prod(shape)).to(torch.float32)
    return levels.add_(0.5).mul_(1.0 / LEVELS).view(len(keys), *shape)


def fine_uniform_field(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw float64 numbers in (0, 1), shape (N, *shape), of 32 bits each: for angles, crops and small fields."""
    size = math.prod(shape)
    words = hashes(keys, -(-size // 2)).view(torch.int32)[:, :size]
    return words.to(torch.float64).add_(2.0**31 + 0.5).mul_(2.0**-32).view(len(keys), *shape)


def integer_field(keys: Tensor, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    """Draw int32 numbers low..high-1, shape (N, *shape); uneven by less than (high - low) / 65,536."""
    return uniform_levels(keys, shape).mul_(high - low).bitwise_right_shift_(16).add_(low)


def normal_field(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal float32 numbers, shape (N, *shape), by looking up 65,536 quantiles (largest |z| 4.32)."""
    levels = uniform_levels(keys, shape)
    return _quantiles(keys.device).index_select(0, levels.view(-1)).view(levels.shape)


def _words(keys: Tensor, size: int) -> Tensor:
    """Cut the hashes into 16-bit numbers, uint16 (N, size)."""
    return hashes(keys, -(-size // 4)).view(torch.uint16)[:, :size]


@functools.lru_cache(maxsize=4)
def _counters(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device=device)


@functools.lru_cache(maxsize=4)
def _unsigned_counters(count: int) -> NDArray[np.uint64]:
    return np.arange(count, dtype=np.uint64)


@functools.cache
def _quantiles(device: torch.device) -> Tensor:
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    quantiles: Tensor = torch.special.ndtri(middles)
    return quantiles.to(torch.float32).to(device)
