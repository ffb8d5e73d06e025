"""Pieces of a batch side by side on the cores of a CPU."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> Generator[Result]:
    """Give the results of the pieces in order, each worked on by one of so many threads.

    One image is too little for torch to divide: its operations on two threads are hardly faster than on one. So each
    thread works on images of its own, and torch uses one thread inside, as `torch.set_num_threads` says meanwhile;
    results then do not depend on the number of threads either.
    """
    if threads < 2 or len(pieces) < 2:
        yield from map(work, pieces)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that are begun from now on take it over
    try:
        with ThreadPoolExecutor(min(threads, len(pieces)), thread_name_prefix="corrupt") as pool:
            yield from pool.map(work, pieces)
    finally:
        torch.set_num_threads(before)
