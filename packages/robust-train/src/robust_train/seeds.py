"""Random numbers as pure functions of the recipe's seed and a position, so that a resumed run draws the same."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def derive(seed: int, *position: int | str) -> int:
    """A seed in [0, 2^63) for one purpose and position, e.g. `derive(seed, "update", 17)`.

    Examples:
        >>> derive(0, "update", 17) == derive(0, "update", 17) != derive(0, "update", 18)
        True
    """
    text = "|".join(map(str, ("robust-train/1", seed, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def permutation(count: int, seed: int) -> Tensor:
    """A random order of 0..count-1, int64, that depends on `seed` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Give torch's random states of the CPU and of `device` back afterwards, whatever is seeded inside."""
    with torch.random.fork_rng(devices=_cuda(device)):
        yield


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch on the CPU and on `device`: what dropout and stochastic depth draw from."""
    torch.default_generator.manual_seed(seed)
    for index in _cuda(device):
        torch.cuda.default_generators[index].manual_seed(seed)


def _cuda(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    index: int | None = device.index
    return [torch.cuda.current_device() if index is None else index]
