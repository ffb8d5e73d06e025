"""Permuted adaptive instance normalisation: images of a batch exchange their style, before batch norm."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robust_models.layers.conversion import find_layers, forget, is_batch_norm, new_generator, record


class PermutedAdaIN(nn.Module):
    """Give every image the channel means and deviations of another one of the batch, rarely and only in training.

    Nuriel, Benaim and Wolf, "Permuted AdaIN: Reducing the Bias Towards Global Statistics in Image Classification", CVPR
    2021, arXiv:2010.05785, section 3. No gradient flows into the style. Maps of a single pixel and batches of one image
    have no style to exchange and stay as they are. There are no parameters.

    Args:
        p: probability of a call to exchange, in [0, 1].
        eps: positive; added to the variances, and once more to the deviation of the content, as the authors do.
        generator: where the draws come from, on the CPU; None makes one whose seed torch's own gives. Gradient
            checkpointing computes a layer twice: pass `torch.default_generator` then, the only one whose draws it
            repeats.

    Raises:
        ValueError: if `p` or `eps` is out of range.
    """

    def __init__(self, p: float = 0.01, eps: float = 1e-5, generator: torch.Generator | None = None) -> None:
        super().__init__()
        _check_settings(p, eps)
        self.p = p
        self.eps = eps
        self.generator = new_generator() if generator is None else generator

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, ...) of the same shape."""
        return self._draw(maps) if self.training and self.p > 0 else maps

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the draw decides what is computed
    def _draw(self, maps: Tensor) -> Tensor:
        if torch.rand((), generator=self.generator) >= self.p:
            return maps
        order = torch.randperm(len(maps), generator=self.generator)
        return permute_style(maps, order.to(maps.device), self.eps)

    def before(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As a forward pre-hook: what the layer behind gets."""
        return (self(inputs[0]), *inputs[1:])

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, eps={self.eps}"


def permute_style(maps: Tensor, order: Tensor, eps: float = 1e-5) -> Tensor:
    """Give image i of the maps (N, C, ...) the style of image `order[i]`: (x - m) / (s + eps) * s' + m'.

    m is the mean and s = sqrt(unbiased variance + eps), of every image and channel; m' and s' are constants for
    autograd. The statistics are computed in float32 at least.
    """
    axes = tuple(range(2, maps.ndim))
    if len(maps) < 2 or math.prod(maps.shape[2:]) < 2:
        return maps
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=axes, keepdim=True)
    deviation = (variance + eps).sqrt()
    styled = (wide - mean) / (deviation + eps) * deviation.detach()[order] + mean.detach()[order]
    return styled.to(maps.dtype)


def convert_permuted_adain(
    model: nn.Module,
    p: float = 0.01,
    eps: float = 1e-5,
    *,
    generator: torch.Generator | None = None,
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Put permuted AdaIN before every batch norm; one generator serves the whole model.

    The batch norms stay what they are, and no key of the state dict changes. Files of the authors, whose keys are
    `X.bn.weight` for a batch norm `X`, load too. Convert to synchronised batch norm before, not after.

    Args:
        model: changed in place.
        p: probability of each layer and call to exchange styles, in [0, 1].
        eps: see `PermutedAdaIN`.
        generator: see `PermutedAdaIN`; it can be seeded at any time.
        include: regular expression of the layers to convert; None takes all.
        exclude: regular expression of the layers to leave out.

    Raises:
        ValueError: if there is no batch norm to convert, or a setting is out of range.

    Examples:
        >>> model = convert_permuted_adain(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> [conversion.layers for conversion in model.robust_conversions]
        [('1',)]
    """
    _check_settings(p, eps)  # also where there is nothing left to convert
    found = find_layers(
        model, is_batch_norm, what="batch norm", done=_is_converted, include=include, exclude=exclude
    )  # fmt: skip
    generator = new_generator() if generator is None else generator
    for bn in dict.fromkeys(found.values()):
        layer = PermutedAdaIN(p, eps, generator).train(bn.training)
        bn.add_module("permuted_adain", layer)
        bn.permuted_adain_hooks = [  # type: ignore[assignment]
            bn.register_forward_pre_hook(layer.before),
            bn.register_load_state_dict_pre_hook(_read_published_keys),  # type: ignore[no-untyped-call]
        ]
    return record(model, "permuted_adain", found, {"p": p, "eps": eps, "include": include, "exclude": exclude})


def revert_permuted_adain(model: nn.Module) -> nn.Module:
    """Take permuted AdaIN out again, and return the model; its batch norms are plain ones."""
    for bn in [module for module in model.modules() if _is_converted(module)]:
        hooks: list[RemovableHandle] = bn.permuted_adain_hooks  # type: ignore[assignment]
        for hook in hooks:
            hook.remove()
        del bn.permuted_adain, bn.permuted_adain_hooks
    return forget(model, "permuted_adain")


def _check_settings(p: float, eps: float) -> None:
    if not 0 <= p <= 1 or not eps > 0:
        raise ValueError(f"permuted AdaIN needs p in [0, 1] and a positive eps, got p={p}, eps={eps}")


def _is_converted(module: nn.Module) -> bool:
    return is_batch_norm(module) and hasattr(module, "permuted_adain")


def _read_published_keys(_bn: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename the authors' `X.bn.weight` to `X.weight`: they put a wrapper around every batch norm."""
    wrapped = f"{prefix}bn."
    for key in [key for key in state if key.startswith(wrapped)]:
        state[prefix + key.removeprefix(wrapped)] = state.pop(key)
