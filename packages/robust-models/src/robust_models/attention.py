"""Attention maps of any timm model: the weights with which tokens look at each other."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from robust_models.features import BlockOutputs as BlockOutputs  # asked for together with maps of attention
from robust_models.features import block_outputs as block_outputs

Keep = Callable[[Tensor], Tensor]
"""What to keep of the maps (N * windows, heads, T, S) of one layer."""

_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)
_NOT_BETWEEN_TOKENS = {
    "XCA": "attention between channels",
    "CrossCovarianceAttn": "attention between channels",
    "ChannelAttention": "attention between channels",
    "ChannelAttentionV2": "attention between channels",
    "LinearSelfAttention": "linear attention",
}
"""Classes in timm whose softmax has the shape of a map but is none."""


@dataclass(frozen=True, kw_only=True)
class AttentionMaps:
    """How the tokens of a model look at each other.

    Args:
        maps: for every layer, by its name and in the order of the computation, its softmax weights (N * windows, heads,
            T, S): every row sums to 1 and says how much a query looks at each of S keys. Windows of an image follow one
            another; without windows there is one. Half precision is widened to float32.
        left_out: for every other layer that computes attention, why it has no map here.
        logits: of the same pass (N, K).
    """

    maps: Mapping[str, Tensor]
    left_out: Mapping[str, str]
    logits: Tensor


def attention_maps(model: nn.Module, images: Tensor, *, keep: Keep | None = None) -> AttentionMaps:
    """Read the softmax weights of every attention layer in one forward pass.

    Weights that a layer computes itself are taken from its softmax. Fused attention, PyTorch's
    `scaled_dot_product_attention`, returns none: there they are computed once more from queries, keys and mask, and the
    layer goes on with the fused result, so that the logits are those of the model, bit by bit. Where gradients are
    recorded, the layer goes on with the computed weights instead, so that the logits depend on the maps and can be
    differentiated by them.

    Rows belong to queries and columns to keys, as the layer has them: a vision transformer of 196 patches and a class
    token gives (N, heads, 197, 197), windows of 7 x 7 patches (N * windows, heads, 49, 49), keys that were pooled
    (N, heads, T, 49), class attention (N, heads, 1, 197). Attention between channels (XCiT, DaViT, EdgeNeXt) and linear
    attention have no such map; they are in `left_out`, as is every layer whose weights could not be read. Where a layer
    mixes several softmaxes (ConViT), the map is what it applies to the values; where it mixes heads behind the softmax
    (CaiT), the map is from before.

    The model is run in eval mode; its mode, its hooks and the global random state are as before afterwards.

    Args:
        model: images to logits; its attention is seen wherever it is inside, also behind a normalisation.
        images: float (N, C, H, W) in [0, 1].
        keep: what to keep of the maps of a layer; None keeps them. A similarity or a mean needs far less memory.

    Raises:
        TypeError: if the model is no module.
        ValueError: if it has no attention between tokens; what it has instead is named.

    Examples:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> found = attention_maps(model, torch.rand(2, 3, 32, 32))
        >>> list(found.maps)[:2], found.maps["blocks.0.attn"].shape
        (['blocks.0.attn', 'blocks.1.attn'], torch.Size([2, 3, 5, 5]))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"attention is read inside a torch.nn.Module, got {type(model).__name__}: pass the model itself"
        )
    watch = _Watch(len(images), keep)
    with _evaluating(model), watch.layers(model), watch:
        logits = model(images)
    left_out = watch.left_out | watch.silent()
    if not watch.maps:
        examples = {why: name for name, why in left_out.items()}
        seen = "; ".join(f"{name}: {why}" for why, name in examples.items())
        raise ValueError(
            f"{type(model).__name__} shows no attention between tokens ({seen or 'it has no attention layer'}): use a "
            "vision transformer, or class activation maps"
        )
    return AttentionMaps(maps=watch.maps, left_out=left_out, logits=logits)


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute the weights that `scaled_dot_product_attention` applies to the values, softmax(q k^T scale + mask).

    Args:
        query: (..., T, d).
        key: (..., S, d).
        attn_mask: what is added to the scores, or where True, which keys may be looked at; broadcast to (..., T, S).
        is_causal: look at no later key.
        scale: None means 1 / sqrt(d).
        enable_gqa: several heads of queries share one of keys.

    Returns:
        (..., T, S), float32 for half precision.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query.to(wide) @ key.to(wide).transpose(-2, -1) * factor
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        added = attn_mask.to(wide) if attn_mask.dtype != torch.bool else _barred(attn_mask, wide)
        scores = scores + added
    return scores.softmax(dim=-1)


@dataclass
class _Call:
    """One call of a module: the softmax weights that were seen in it, and what was made of them before a dropout."""

    name: str
    module: nn.Module
    weights: list[Tensor] = field(default_factory=list)
    mixed: Tensor | None = None


class _Watch(TorchFunctionMode):
    """Sees the softmaxes of a forward pass and knows in which layer they are."""

    def __init__(self, images: int, keep: Keep | None) -> None:
        super().__init__()
        self.maps: dict[str, Tensor] = {}
        self.left_out: dict[str, str] = {}
        self._images = images
        self._keep = keep
        self._calls: list[_Call] = []
        self._ran: dict[str, nn.Module] = {}

    @contextlib.contextmanager
    def layers(self, model: nn.Module) -> Iterator[None]:
        """Know, inside the block, which layer is being computed."""
        handles = []
        for name, module in model.named_modules():
            if next(module.children(), None) is not None or _is_attention(module):
                handles.append(module.register_forward_pre_hook(self._entering(name)))
                handles.append(module.register_forward_hook(self._leaving, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def silent(self) -> dict[str, str]:
        """Layers that are called attention but in which, and in whose own layers, nothing was seen."""
        heard = [name.partition(" (")[0] for name in (*self.maps, *self.left_out)]
        return {
            name: f"{type(module).__name__} has no softmax weights between tokens that could be read"
            for name, module in self._ran.items()
            if _is_attention(module) and not any(other == name or other.startswith(f"{name}.") for other in heard)
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and self._calls:
            return self._attend(func, *args, **kwargs)
        result = func(*args, **kwargs)
        if self._calls:
            if func in _SOFTMAX and result.ndim > 2 and _last(result, *args[1:], **kwargs):
                self._calls[-1].weights.append(result)
            elif func is functional.dropout and any(args[0].shape == each.shape for each in self._calls[-1].weights):
                self._calls[-1].mixed = args[0]
        return result

    def _attend(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        weights = attention_weights(query, key, attn_mask, is_causal=is_causal, **options)
        self._calls[-1].weights.append(weights)
        if torch.is_grad_enabled() and weights.requires_grad and not dropout_p:
            return weights.to(value.dtype) @ _heads(value, weights)
        out: Tensor = func(query, key, value, attn_mask, dropout_p, is_causal, **options)
        return out

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, _arguments: object) -> None:
            self._calls.append(_Call(name, module))

        return enter

    def _leaving(self, module: nn.Module, _arguments: object, _output: object) -> None:
        call = self._calls.pop()
        self._ran[call.name] = module
        if not call.weights:
            return
        name, kind = self._free(call.name), type(module).__name__
        weights = call.mixed if len(call.weights) > 1 else call.weights[0]
        if kind in _NOT_BETWEEN_TOKENS:
            self.left_out[name] = _NOT_BETWEEN_TOKENS[kind]
        elif weights is None:
            self.left_out[name] = f"{kind} has {len(call.weights)} softmaxes"
        elif (found := _by_head(weights, module, self._images)) is None:
            self.left_out[name] = f"the softmax of {kind}, of the shape {tuple(weights.shape)}, is none between tokens"
        else:
            found = found.to(torch.promote_types(found.dtype, torch.float32))
            self.maps[name] = found if self._keep is None else self._keep(found)

    def _free(self, name: str) -> str:
        """The name, numbered where a layer is computed more than once."""
        names = itertools.chain((name,), (f"{name} ({number})" for number in itertools.count(2)))
        return next(each for each in names if each not in self.maps and each not in self.left_out)


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "attention" in name or "attn" in name or name == "xca"


def _last(result: Tensor, dim: int | None = None, *_: object, **options: Any) -> bool:
    given = options.get("dim", dim)
    return given is not None and given % result.ndim == result.ndim - 1


def _by_head(weights: Tensor, module: nn.Module, images: int) -> Tensor | None:
    """Lay weights out as (N * windows, heads, T, S); None if they are not between tokens of `images` images."""
    heads = getattr(module, "num_heads", getattr(module, "heads", None))
    if len(weights) % images:
        return None
    if weights.ndim == 3:
        folded = heads if isinstance(heads, int) and len(weights) % (images * heads) == 0 else 1
        square = weights.shape[1] == weights.shape[2]
        return weights.reshape(-1, folded, *weights.shape[1:]) if square or _is_attention(module) else None
    if weights.ndim == 4:
        if heads in (None, weights.shape[1]):
            return weights
        return weights.transpose(1, 2) if heads == weights.shape[2] else None
    if weights.ndim == 5 and heads in weights.shape[1:3]:
        return (weights.transpose(1, 2) if heads == weights.shape[1] else weights).flatten(0, 1)
    return None


def _barred(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)


def _heads(value: Tensor, weights: Tensor) -> Tensor:
    """The values of every head of the weights, where heads share them."""
    if value.ndim < 3 or value.shape[-3] == weights.shape[-3]:
        return value
    return value.repeat_interleave(weights.shape[-3] // value.shape[-3], dim=-3)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
