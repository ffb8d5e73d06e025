"""Gradients over several processes: when not to average them, and how to average what was combined locally."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

Sync = Literal["per_rank", "global"]

_BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel


def resolve_sync(sync: Sync | None, usual: Sync, model: nn.Module | None) -> Sync:
    """The given `sync`, or the method's usual one, checked against how `model` is distributed.

    Raises:
        ValueError: if `sync` is neither None, "per_rank" nor "global", or is "per_rank" with sharded weights or a graph
            that is static.
        TypeError: if `model` is a FullyShardedDataParallel, whose flat weights hide what belongs to which tensor.
    """
    if sync not in (None, "per_rank", "global"):
        raise ValueError(f'sync must be "per_rank", "global" or None for the usual one of the method, got {sync!r}')
    if model is not None and any(hasattr(module, "summon_full_params") for module in model.modules()):
        raise TypeError("FullyShardedDataParallel is not supported: shard with torch.distributed.fsdp.fully_shard")
    if not hasattr(model, "set_requires_gradient_sync"):
        chosen = sync or usual
        if chosen == "per_rank" and getattr(model, "static_graph", False):
            raise ValueError(
                'DistributedDataParallel(static_graph=True) must average its first gradients, and sync="per_rank" does '
                'not: build the model without static_graph, or pass sync="global"'
            )
        return chosen
    if sync == "per_rank":
        raise ValueError('no rank has whole gradients of a model under fully_shard: sync="per_rank" needs them')
    return "global"


def no_sync(model: nn.Module | None) -> AbstractContextManager[object]:
    """Leave gradients unaveraged inside, if `model` is a DistributedDataParallel; do nothing otherwise."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        context: AbstractContextManager[object] = model.no_sync()
        return context
    return nullcontext()


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor], model: nn.Module | None) -> None:
    """Average the gradients of `parameters` over the ranks of `model`, in buckets; nothing without such a model.

    As in DistributedDataParallel, a rank without the gradient that others have of a parameter counts as one of zero,
    and gets the average; where no rank has one, none is made.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return
    size = torch.distributed.get_world_size(model.process_group)
    for bucket in _buckets([parameter for parameter in parameters if parameter.requires_grad]):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        present = gradients[0].new_tensor([parameter.grad is not None for parameter in bucket])
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), present]).div_(size)
        torch.distributed.all_reduce(flat, group=model.process_group)
        *means, present = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(bucket)])
        for i, (parameter, gradient, mean) in enumerate(zip(bucket, gradients, means, strict=True)):
            if parameter.grad is not None or present[i] > 0:  # read by the host only where a gradient is missing
                parameter.grad = gradient.copy_(mean.view(gradient.shape))


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Parameters of one device and dtype together, in the same order on every rank, up to a size."""
    buckets: list[list[Tensor]] = []
    open_buckets: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], int]] = {}
    for parameter in parameters:
        kind = (parameter.device, parameter.dtype)
        bucket, filled = open_buckets.get(kind, ([], 0))
        if not bucket or filled + parameter.nbytes > _BUCKET_BYTES:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(parameter)
        open_buckets[kind] = (bucket, filled + parameter.nbytes)
    return buckets
