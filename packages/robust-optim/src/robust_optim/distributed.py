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
        ValueError: if `sync` is neither None, "per_rank" nor "global", or "per_rank" is asked of sharded weights.
        TypeError: if `model` is a FullyShardedDataParallel, whose flat weights hide what belongs to which tensor.
    """
    if sync not in (None, "per_rank", "global"):
        raise ValueError(f'sync must be "per_rank", "global" or None for the usual one of the method, got {sync!r}')
    if hasattr(model, "summon_full_params"):
        raise TypeError("FullyShardedDataParallel is not supported: shard with torch.distributed.fsdp.fully_shard")
    if not hasattr(model, "set_requires_gradient_sync"):
        return sync or usual
    if sync == "per_rank":
        raise ValueError('no rank has whole gradients of a model under fully_shard: sync="per_rank" needs them')
    return "global"


def no_sync(model: nn.Module | None) -> AbstractContextManager[object]:
    """Leave gradients unaveraged inside, if `model` is a DistributedDataParallel; do nothing otherwise."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        context: AbstractContextManager[object] = model.no_sync()
        return context
    return nullcontext()


def average_gradients(parameters: Sequence[Tensor], model: nn.Module | None) -> None:
    """Average the gradients of `parameters` over the ranks of `model`, in buckets; nothing without such a model."""
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    size = torch.distributed.get_world_size(model.process_group)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        torch.distributed.all_reduce(flat, group=model.process_group)
        parts = torch.split(flat.div_(size), [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients of one device and dtype together, in the same order on every rank, up to a size."""
    buckets: list[list[Tensor]] = []
    open_buckets: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], int]] = {}
    for gradient in gradients:
        kind = (gradient.device, gradient.dtype)
        bucket, filled = open_buckets.get(kind, ([], 0))
        if not bucket or filled + gradient.nbytes > _BUCKET_BYTES:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(gradient)
        open_buckets[kind] = (bucket, filled + gradient.nbytes)
    return buckets
