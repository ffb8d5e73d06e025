"""The processes that train together, one per device, as torchrun starts them."""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from robust_bench.world import World, torchrun
from timm.utils import distribute_bn  # type: ignore[attr-defined]
from torch import Tensor, distributed, nn

from robust_train.errors import SetupError

_PATIENCE = datetime.timedelta(minutes=30)  # for gradients, as torch has it


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        group: by which they talk of other things than gradients; it waits for the slowest of them.
    """

    rank: int = 0
    size: int = 1
    group: Any = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def check(self, smallest_batch: int) -> None:
        """Refuse batches that leave a process without an image.

        Raises:
            SetupError: if the smallest part of a batch of an epoch is one.
        """
        if smallest_batch < self.size:
            raise SetupError(
                f"the smallest part of a batch has {smallest_batch} images for {self.size} processes: set "
                "data.drop_last to true, or change batch_size or accumulate"
            )

    def part(self, items: Tensor) -> Tensor:
        """What this process has of a batch: every `size`-th item."""
        return items[self.rank :: self.size]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes; alone, the module itself.

        Buffers are never sent: statistics of batch norms are those of the process until `average_statistics`.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def average_statistics(self, model: nn.Module) -> None:
        """Average the running statistics of batch norms over all processes; all must ask."""
        if self.size > 1:
            distribute_bn(model, self.size, reduce=True)  # type: ignore[no-untyped-call]

    def agree(self, flag: bool) -> bool:
        """Whether any process says so; all must ask."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag))
        distributed.all_reduce(votes, distributed.ReduceOp.MAX, group=self.group)
        return bool(votes)

    def from_first(self, value: Any) -> Any:
        """The value that the first process has; all must ask."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes by rank; all must ask."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def totals(self, values: list[float]) -> list[float]:
        """The sums over all processes; all must ask."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums, group=self.group)
        return sums.tolist()


ALONE = Processes()


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started, or be alone; the group ends with the block.

    Gradients travel by NCCL between GPUs and by Gloo between CPUs. A group that exists already is used and left.
    """
    there = distributed.is_available() and distributed.is_initialized()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with contextlib.nullcontext() if there else torchrun(backend, timeout=_PATIENCE):
        world = World.current()
        yield Processes(world.rank, world.size, world.group)
