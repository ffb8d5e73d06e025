"""How an evaluation is divided among processes."""

import datetime
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed

_PATIENCE = datetime.timedelta(days=7)  # for the slowest rank; torchrun ends all of them when one dies
_MEETING = datetime.timedelta(minutes=5)  # for all to come; who waits in vain fails, and torchrun starts all anew


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all that work on an evaluation.

    Args:
        rank: its number, 0 .. `size` - 1.
        size: how many there are.
        together: they are connected by torch.distributed and end together; else each is a job of its own.
        group: their own Gloo group, which waits for the slowest of them.

    Raises:
        ValueError: if the rank is not below the size.
    """

    rank: int = 0
    size: int = 1
    together: bool = False
    group: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"a part must be i/n with 0 <= i < n, got {self.rank}/{self.size}")

    @classmethod
    def current(cls) -> "World":
        """The ranks of torch.distributed where it is initialised, else this process alone.

        All ranks must call it, since they make a group of their own.
        """
        if distributed.is_available() and distributed.is_initialized():
            group = _own_group(distributed.group.WORLD)
            return cls(rank=distributed.get_rank(), size=distributed.get_world_size(), together=True, group=group)
        return cls()

    @classmethod
    def asked(cls, shard: str | None) -> "World":
        """The part "i/n" that was asked for, or, where none was, what `current` gives, which all ranks must call.

        Raises:
            ValueError: if torchrun has divided the work already, or it is not of this form.
        """
        world = cls.current()
        if shard is None:
            return world
        if world.together:
            raise ValueError("torchrun divides the work by itself: leave --shard out, or start the jobs without it")
        return cls.parse(shard)

    @classmethod
    def parse(cls, text: str) -> "World":
        """Read "i/n", counted from 0, as in `--shard 3/64`.

        Raises:
            ValueError: if it is not of this form.

        Examples:
            >>> World.parse("3/64")
            World(rank=3, size=64, together=False)
        """
        rank, slash, size = text.partition("/")
        if not (slash and rank.strip().isdecimal() and size.strip().isdecimal()):
            raise ValueError(f"a part must be i/n, counted from 0, as 3/64, got {text!r}")
        return cls(rank=int(rank), size=int(size))

    def share(self, missing: list[int]) -> list[int]:
        """This process's share of what is missing, as numbers.

        Ranks that are connected divide what rank 0 finds missing, so that all of them have work after a restart. Jobs
        of their own cannot ask each other, and take every n-th of all numbers.
        """
        if self.together:
            found = [missing]
            distributed.broadcast_object_list(found, src=0, group=self.group)
            return found[0][self.rank :: self.size]
        return [number for number in missing if number % self.size == self.rank]

    def wait(self) -> None:
        """Wait until all ranks have come this far."""
        if self.together:
            distributed.barrier(group=self.group)


@functools.lru_cache(maxsize=1)
def _own_group(_world: Any) -> Any:
    """A Gloo group of all ranks, once for each time that torch.distributed is initialised."""
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


@contextmanager
def torchrun(backend: str = "gloo", timeout: datetime.timedelta = _MEETING) -> Iterator[None]:
    """Join the other processes if torchrun has started this one; leave them at the end.

    The processes find each other under a name of their own for every restart, since torch would find the addresses of
    those that have died.

    Args:
        backend: of torch.distributed. In an evaluation Gloo carries the list of what is to be done and the barrier at
            the end, on GPUs as well: no tensor is exchanged.
        timeout: how long the processes wait for each other, but for what a `World` does in its own group.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" not in environment:
        yield
        return
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    store = distributed.TCPStore(  # type: ignore[attr-defined]  # torch does not list it
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        is_master=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        timeout=_MEETING,
    )
    name = f"robust-bench/{environment['TORCHELASTIC_RESTART_COUNT']}"
    named = distributed.PrefixStore(name, store)  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=named, rank=rank, world_size=size, timeout=timeout)
    try:
        yield
    finally:
        _own_group.cache_clear()
        distributed.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process's number on its machine, where a GPU is asked for without a number."""
    rank = os.environ.get("LOCAL_RANK")
    return device if rank is None or str(device) != "cuda" else torch.device("cuda", int(rank))
