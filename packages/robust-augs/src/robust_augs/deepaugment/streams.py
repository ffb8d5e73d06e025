"""Random numbers that depend on a seed and the index of an image alone, so that a resumed run repeats them."""

import hashlib

import torch


def stream(seed: int, index: int, purpose: str) -> torch.Generator:
    """A generator on the CPU whose numbers belong to one image and purpose."""
    digest = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def edits_in_force(count: int, seed: int, probability: float) -> list[int]:
    """For each of `count` images in order: the image at which the weights were last edited before it, or at it.

    The weights are edited at the first image and, with `probability`, at each later one.
    """
    edited = torch.rand(count, generator=stream(seed, 0, "edited")) < probability
    latest: list[int] = torch.where(edited, torch.arange(count), 0).cummax(dim=0).values.tolist()
    return latest
