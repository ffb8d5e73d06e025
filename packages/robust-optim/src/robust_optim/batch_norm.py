"""Batch norm in a second forward pass: use the batch's statistics, leave the running ones alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of every batch norm in `model` still for the length of a `with` block.

    A sharpness-aware step runs the network twice: at the weights and at perturbed weights. The second pass must
    normalise with the statistics of its batch, exactly as in training, but it must not move the running mean and
    variance, which belong to the unperturbed weights. Setting the momentum to 0, the usual way, still counts batches
    and is lost for ever when entered twice.

    Batch norms in train mode (1d, 2d, 3d, SyncBatchNorm and subclasses such as timm's) give the same output as
    before, while `running_mean`, `running_var` and `num_batches_tracked` stay as they are. Those in eval mode are
    untouched. Blocks may be nested, and an exception inside undoes the freeze as well.

    Args:
        model: the network; all of its sub-modules are searched.

    Raises:
        TypeError: if `model` is not a module.

    Examples:
        >>> import torch
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> with frozen_batch_norm(norm):
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.running_mean, int(norm.num_batches_tracked)
        (tensor([0., 0.]), 0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"frozen_batch_norm takes the torch.nn.Module whose batch norms to freeze, got {type(model)}")
    frozen = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for module in frozen:
            module.track_running_stats = False
        yield
    finally:
        for module in frozen:
            module.track_running_stats = True
