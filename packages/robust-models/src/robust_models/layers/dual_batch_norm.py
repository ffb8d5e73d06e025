"""Batch norms with a second set of statistics, for training on clean and adversarial images at once."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_models.layers.conversion import find_layers, forget, is_batch_norm, record


class SwitchableBatchNorm(_BatchNorm):
    """A batch norm with auxiliary ones beside it, each with its own weights and statistics.

    Xie et al., "Adversarial Examples Improve Image Recognition", CVPR 2020, arXiv:1911.09665, section 4.2.
    `convert_switchable_bn` makes them from the batch norms of a model. The main one keeps its keys; the first auxiliary
    one is `bn_adv`, others are `bn_adv2`, `bn_adv3`. An activation or dropout that is fused with the batch norm
    serves all.

    In training `status` says who sees the batch: "clean" the main one, "adv" (or "adv2", ...) an auxiliary one, and
    "mix" all of them: with one auxiliary batch norm the first floor(N / 2) images are for the main one and the rest is
    for it; with more the batch is cut in as many parts. In evaluation `eval_branch` says it: "main", or "adv". Neither
    is part of the state dict.
    """

    original: ClassVar[type[_BatchNorm]]
    auxiliary: ClassVar[type[_BatchNorm]]
    status = "clean"
    eval_branch = "main"
    n_aux = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (N, C, ...).

        Raises:
            ValueError: if the status is "mix" and the batch is smaller than the number of batch norms.
        """
        branch = self.status if self.training else self.eval_branch
        if branch != "mix":
            return self._through(branch, x)
        branches = self.branches()
        if len(x) < len(branches):
            raise ValueError(
                f'the status "mix" shares the batch among {len(branches)} batch norms, got {len(x)} images: use a '
                'larger batch, or the status "clean" or "adv"'
            )
        cuts = [len(x) * index // len(branches) for index in range(1, len(branches))]
        parts = torch.tensor_split(x, cuts)
        return torch.cat([self._through(branch, part) for branch, part in zip(branches, parts, strict=True)])

    def branches(self) -> list[str]:
        """The statuses of a single batch norm: "clean", "adv", "adv2", ..."""
        return ["clean", *_auxiliary_branches(self.n_aux)]

    def _through(self, branch: str, x: Tensor) -> Tensor:
        if branch in ("clean", "main"):
            return super().forward(x)
        x = self.get_submodule(f"bn_{branch}")(x)
        for fused in ("drop", "act"):
            if fused in self._modules:
                x = self.get_submodule(fused)(x)
        return x


class SwitchableBatchNorm1d(SwitchableBatchNorm, nn.BatchNorm1d):
    """For (N, C) and (N, C, L)."""

    original = auxiliary = nn.BatchNorm1d


class SwitchableBatchNorm2d(SwitchableBatchNorm, nn.BatchNorm2d):
    """For (N, C, H, W)."""

    original = auxiliary = nn.BatchNorm2d


class SwitchableBatchNorm3d(SwitchableBatchNorm, nn.BatchNorm3d):
    """For (N, C, D, H, W)."""

    original = auxiliary = nn.BatchNorm3d


class SwitchableSyncBatchNorm(SwitchableBatchNorm, nn.SyncBatchNorm):
    """For any shape, with statistics of all processes."""

    original = auxiliary = nn.SyncBatchNorm


class SwitchableBatchNormAct2d(SwitchableBatchNorm, BatchNormAct2d):
    """For (N, C, H, W), followed by dropout and activation."""

    original, auxiliary = BatchNormAct2d, nn.BatchNorm2d


class SwitchableSyncBatchNormAct(SwitchableBatchNorm, SyncBatchNormAct):
    """For any shape, with statistics of all processes, followed by dropout and activation."""

    original, auxiliary = SyncBatchNormAct, nn.SyncBatchNorm


_KINDS: tuple[type[SwitchableBatchNorm], ...] = (
    SwitchableBatchNorm1d,
    SwitchableBatchNorm2d,
    SwitchableBatchNorm3d,
    SwitchableSyncBatchNorm,
    SwitchableBatchNormAct2d,
    SwitchableSyncBatchNormAct,
)
_SWITCHABLE: dict[type[nn.Module], type[SwitchableBatchNorm]] = {kind.original: kind for kind in _KINDS}


def convert_switchable_bn(
    model: nn.Module,
    n_aux: int = 1,
    *,
    eval_branch: str = "main",
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Give every batch norm auxiliary ones, copies of it, and the status "clean".

    Convert to synchronised batch norm before, not after.

    Args:
        model: changed in place; its batch norms stay the same objects, of another class.
        n_aux: how many auxiliary batch norms, at least 1.
        eval_branch: which of them evaluation uses, "main" or "adv" (or "adv2", ...).
        include: regular expression of the layers to convert; None takes all.
        exclude: regular expression of the layers to leave out.

    Raises:
        ValueError: if there is no batch norm to convert, one is of an unknown class, or a setting is out of range.

    Examples:
        >>> model = convert_switchable_bn(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> with bn_status(model, "mix"):
        ...     logits = model(torch.rand(4, 3, 8, 8))
    """
    branches = _auxiliary_branches(n_aux)
    if n_aux < 1 or eval_branch not in ("main", *branches):
        raise ValueError(
            f"n_aux must be at least 1 and eval_branch one of {['main', *branches]}, got {n_aux} and {eval_branch!r}"
        )
    found = find_layers(
        model, is_batch_norm, what="batch norm", done=_is_converted, include=include, exclude=exclude
    )  # fmt: skip
    for name, layer in found.items():
        if type(layer) not in _SWITCHABLE:
            raise ValueError(
                f"{name!r} is a {type(layer).__name__}, for which there is no switchable batch norm: leave it out with "
                "exclude=..."
            )
    layers: list[Any] = list(dict.fromkeys(found.values()))
    for bn in layers:
        kind = _SWITCHABLE[type(bn)]
        auxiliaries = [_copy(bn, kind.auxiliary) for _ in range(n_aux)]
        bn.__class__ = kind
        bn.n_aux = n_aux
        bn.eval_branch = eval_branch
        for branch, auxiliary in zip(branches, auxiliaries, strict=True):
            bn.add_module(f"bn_{branch}", auxiliary)
    options = {"n_aux": n_aux, "eval_branch": eval_branch, "include": include, "exclude": exclude}
    return record(model, "switchable_bn", found, options)


def set_bn_status(model: nn.Module, status: str | None = None, *, eval_branch: str | None = None) -> None:
    """Say which batch norms see the images from now on.

    Args:
        model: with batch norms that `convert_switchable_bn` made.
        status: in training, "clean", "adv" (or "adv2", ...) or "mix"; None leaves it.
        eval_branch: in evaluation, "main" or "adv" (or "adv2", ...); None leaves it.

    Raises:
        ValueError: if there is no switchable batch norm, or one has no such status.
    """
    layers = _switchable(model)
    for layer in layers:
        auxiliary = layer.branches()[1:]
        if status not in (None, "clean", "mix", *auxiliary) or eval_branch not in (None, "main", *auxiliary):
            raise ValueError(
                f"the status is one of {['clean', *auxiliary, 'mix']} and eval_branch one of {['main', *auxiliary]}, "
                f"got {status!r} and {eval_branch!r}"
            )
    for layer in layers:
        layer.status = layer.status if status is None else status
        layer.eval_branch = layer.eval_branch if eval_branch is None else eval_branch


@contextlib.contextmanager
def bn_status(model: nn.Module, status: str | None = None, *, eval_branch: str | None = None) -> Iterator[None]:
    """Do `set_bn_status` inside a `with` block; afterwards every layer is as before.

    Raises:
        ValueError: see `set_bn_status`.
    """
    before = [(layer, layer.status, layer.eval_branch) for layer in _switchable(model)]
    set_bn_status(model, status, eval_branch=eval_branch)
    try:
        yield
    finally:
        for layer, was, branch in before:
            layer.status, layer.eval_branch = was, branch


def drop_aux_bn(model: nn.Module) -> nn.Module:
    """Leave the main batch norms alone in the model, of their first class, and return it.

    Raises:
        ValueError: if there is no switchable batch norm.
    """
    for layer in _switchable(model):
        for branch in layer.branches()[1:]:
            delattr(layer, f"bn_{branch}")
        bn: Any = layer
        for name in ("status", "eval_branch", "n_aux"):
            vars(bn).pop(name, None)
        bn.__class__ = layer.original
    return forget(model, "switchable_bn")


def _auxiliary_branches(n_aux: int) -> list[str]:
    return [f"adv{index}" if index > 1 else "adv" for index in range(1, n_aux + 1)]


def _is_converted(module: nn.Module) -> bool:
    return isinstance(module, SwitchableBatchNorm)


def _switchable(model: nn.Module) -> list[SwitchableBatchNorm]:
    layers = [module for module in model.modules() if isinstance(module, SwitchableBatchNorm)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no switchable batch norm: convert it with convert_switchable_bn first"
        )
    return layers


def _copy(bn: Any, kind: type[_BatchNorm]) -> _BatchNorm:
    """A batch norm with the same numbers as `bn`, in tensors of its own."""
    copied: Any = kind(bn.num_features, bn.eps, bn.momentum, bn.affine, bn.track_running_stats)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(copied, name, copy.deepcopy(getattr(bn, name)))
    if isinstance(copied, nn.SyncBatchNorm):
        copied.process_group = bn.process_group
    return copied.train(bn.training)  # type: ignore[no-any-return]
