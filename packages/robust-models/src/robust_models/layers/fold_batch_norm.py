"""Batch norms folded into the layers before them, for faster evaluation."""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robust_models.layers.conversion import is_batch_norm, record, replace_layers

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)


def fold_batch_norm(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """Multiply every batch norm that follows a convolution or a linear layer into it; the answers stay the same.

    y = (W x + b - m) / sqrt(v + eps) * g + h, with the statistics m and v of training and the weights g and h of the
    batch norm, is one layer with the weights g W / sqrt(v + eps). An activation that timm fuses with a batch norm stays
    in its place. The model is for evaluation then; keep a copy to train on. On CPUs about as much is
    gained again by `model.to(memory_format=torch.channels_last)`, whatever the format of the images.

    Which layer follows which is seen in a forward pass, not guessed from names. A batch norm stays where it is not
    certain: its input is used elsewhere too, either layer is called twice, has hooks (revert conversions before), is of
    another class (weight standardisation, parametrisations) or has no statistics.

    Args:
        model: in eval mode; changed in place.
        example: an input, such as one image (1, C, H, W); None makes zeros of the size in the model's `pretrained_cfg`,
            which models of timm have.

    Raises:
        ValueError: if the model or a part of it is in training mode, has no batch norm to fold, or there is no example.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> [type(layer).__name__ for layer in fold_batch_norm(model, torch.zeros(1, 3, 8, 8))]
        ['Conv2d', 'Identity', 'ReLU']
    """
    training = [
        name for name, module in model.named_modules() if module.training and (not name or is_batch_norm(module))
    ]
    if training:
        raise ValueError(
            f"batch norms are folded in eval mode, but {training[0]!r} is in training mode: call model.eval() first"
        )
    watch = _Watch(model)
    watch.run(_example(model) if example is None else example)
    pairs = watch.pairs()
    if not pairs:
        raise ValueError(f"{type(model).__name__} has no batch norm right behind a convolution or linear layer to fold")
    names = {module: name for name, module in model.named_modules()}
    for linear, bn in pairs.items():
        _fold(linear, bn)
    replace_layers(model, {names[bn]: getattr(bn, "act", nn.Identity()) for bn in pairs.values()})
    return record(model, "fold_batch_norm", dict.fromkeys(names[bn] for bn in pairs.values()), {})


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees in a forward pass which batch norm gets the output of which layer, and what else is done with it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._calls: list[nn.Module] = []
        self._outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that their ids stay theirs
        self._followers: list[tuple[nn.Module, nn.Module]] = []
        self._used: set[nn.Module] = set()
        self._inside: nn.Module | None = None

    def run(self, example: Tensor) -> None:
        """Compute the model on an example."""
        handles = []
        for module in self._model.modules():
            if type(module) in _LINEAR and not _has_hooks(module):
                handles.append(module.register_forward_hook(self._leaves))
            elif type(module) in _NORMS and not _has_hooks(module):
                handles.append(module.register_forward_pre_hook(self._enters))
                handles.append(module.register_forward_hook(self._left))
        try:
            with torch.no_grad(), self:
                output = self._model(example)
        finally:
            for handle in handles:
                handle.remove()
        self._use(tree_leaves(output))

    def pairs(self) -> dict[nn.Module, nn.Module]:
        """The layers whose output goes to a batch norm and nowhere else, with it; each is called once."""
        return {
            linear: bn
            for linear, bn in self._followers
            if self._calls.count(linear) == self._calls.count(bn) == 1 and linear not in self._used
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._inside is None:
            self._use(tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _use(self, leaves: list[Any]) -> None:
        for leaf in leaves:
            if id(leaf) in self._outputs:
                self._used.add(self._outputs[id(leaf)][0])

    def _leaves(self, linear: nn.Module, _inputs: object, output: Tensor) -> None:
        self._calls.append(linear)
        self._outputs[id(output)] = (linear, output)

    def _enters(self, bn: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._calls.append(bn)
        self._inside = bn
        linear, _ = self._outputs.get(id(inputs[0]), (None, None))
        if linear is not None and _fits(linear, bn, inputs[0]):
            self._followers.append((linear, bn))

    def _left(self, _bn: nn.Module, _inputs: object, _output: object) -> None:
        self._inside = None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fits(linear: Any, bn: Any, output: Tensor) -> bool:
    """Whether the channels of the one are those of the other, and the batch norm has statistics."""
    axes = 2 if isinstance(linear, nn.Linear) else linear.weight.ndim
    return output.ndim == axes and bn.running_mean is not None and bn.running_var is not None


def _example(model: Any) -> Tensor:
    """Zeros of the size that a model of timm is for, on its device."""
    size = getattr(model, "pretrained_cfg", {}).get("input_size")
    if size is None:
        raise ValueError(f"{type(model).__name__} does not say its input size: pass an example, one image (1, C, H, W)")
    first = next(model.parameters())
    return torch.zeros(1, *size, device=first.device, dtype=first.dtype)


def _fold(linear: Any, bn: Any) -> None:
    """Change the weights of the layer, computed in float64 on the CPU."""
    zero, one = torch.zeros(1), torch.ones(1)
    bias = zero if linear.bias is None else linear.bias
    gain, offset = (one, zero) if bn.weight is None else (bn.weight, zero if bn.bias is None else bn.bias)
    weight, bias, mean, variance, gain, offset = (
        each.detach().cpu().double() for each in (linear.weight, bias, bn.running_mean, bn.running_var, gain, offset)
    )
    scale = gain / (variance + bn.eps).sqrt()
    like, trained = linear.weight.detach(), linear.weight.requires_grad
    linear.weight = nn.Parameter((weight * scale.view(-1, *[1] * (like.ndim - 1))).to(like), trained)
    linear.bias = nn.Parameter(((bias - mean) * scale + offset).to(like), trained)
