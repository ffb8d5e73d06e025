"""Statistics of batch norms: left alone in a second forward pass, measured anew for averaged weights."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy


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
        ValueError: if a lazy batch norm has not seen a batch yet, so that it has no statistics to keep.

    Examples:
        >>> import torch
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> with frozen_batch_norm(norm):
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.running_mean, int(norm.num_batches_tracked)
        (tensor([0., 0.]), 0)
    """
    frozen = [norm for norm in _tracking_norms(model, "frozen_batch_norm") if norm.training]
    try:
        for module in frozen:
            module.track_running_stats = False
        yield
    finally:
        for module in frozen:
            module.track_running_stats = True


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Tensor | Sequence[object]]) -> None:
    """Measure the running statistics of every batch norm in `model` anew, for weights that were never trained.

    An average of weights has activations of its own, so the statistics of the online weights do not fit it: Izmailov
    et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, arXiv:1803.05407.
    Give training images, augmented as in training.

    The running mean and variance become the plain means of those of the batches, so batches should be of one size.
    Differs from `torch.optim.swa_utils.update_bn`: only batch norms are in train mode meanwhile, so there is no
    dropout; afterwards every module has its own mode back; without batches, or after an exception, the old
    statistics stay; batch norms that no batch went through, such as auxiliary ones, keep theirs.

    Args:
        model: the network, for instance inside `WeightAverage.applied()`; one without batch norms is left alone.
        batches: inputs of the model, or tuples that begin with them, such as a loader of images and labels. They are
            moved to the device of the model.

    Raises:
        TypeError: if `model` is not a module, or a batch neither a tensor nor a tuple or list that begins with one.
        ValueError: if there are no batches, a lazy batch norm has not seen one yet, or one has no counter of batches.

    Examples:
        >>> norm = torch.nn.BatchNorm1d(1)
        >>> reestimate_batch_norm(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])])
        >>> norm.running_mean, norm.running_var
        (tensor([4.5000]), tensor([5.]))
    """
    norms = [norm for norm in _tracking_norms(model, "reestimate_batch_norm") if norm.running_mean is not None]
    if not norms:
        return
    if any(norm.num_batches_tracked is None for norm in norms):
        raise ValueError("a batch norm has no counter num_batches_tracked, without which it cannot form a plain mean")
    device = next(chain(model.parameters(), model.buffers())).device
    modes = [(module, module.training) for module in model.modules()]
    before = [(norm, norm.momentum, [buffer.clone() for buffer in _statistics(norm)]) for norm in norms]
    measured = seen = False
    try:
        for module, _ in modes:
            module.training = False
        for norm in norms:
            norm.training = True  # not norm.train(), which would wake dropout inside of it
            norm.momentum = None  # the plain mean over batches
            norm.reset_running_stats()
        for batch in batches:
            model(_inputs(batch).to(device))
            seen = True
        measured = seen
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum, statistics in before:
            norm.momentum = momentum
            if not measured or norm.num_batches_tracked == 0:
                for buffer, old in zip(_statistics(norm), statistics, strict=True):
                    buffer.copy_(old)
    if not measured:
        raise ValueError("there are no batches to measure the statistics on: the old ones were kept")


def _tracking_norms(model: nn.Module, caller: str) -> list[_BatchNorm]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller} takes the torch.nn.Module whose batch norms are meant, got {type(model)}")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if any(norm.running_mean is not None and is_lazy(norm.running_mean) for norm in norms):
        raise ValueError("a lazy batch norm has not seen a batch yet: run one through the model first")
    return norms


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    buffers = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [buffer for buffer in buffers if buffer is not None]


def _inputs(batch: Tensor | Sequence[object]) -> Tensor:
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"a batch must be a tensor of inputs, or a tuple or list that begins with it, got {type(batch).__name__}"
        )
    return inputs
