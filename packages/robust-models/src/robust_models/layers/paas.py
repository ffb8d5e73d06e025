"""Attention whose scores are scaled by a learnt table of positions, and its addition to vision transformers."""

from collections.abc import Iterable

import torch
from timm.layers.attention import Attention, maybe_add_mask, resolve_self_attn_mask
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from robust_models.layers.conversion import record


class PAASAttention(nn.Module):
    """Multi-head self-attention that multiplies its scores by a learnt importance of every pair of positions.

    Position-aware attention scaling of Mao et al., "Towards Robust Vision Transformer", CVPR 2022, arXiv:2105.07926:
    softmax(q k^T / sqrt(d) * sigmoid(att_mask)) v. The authors' code leaves the table `att_mask` uninitialised, here it
    starts as a truncated normal of std 0.02.

    Args:
        dim: width of the tokens, a multiple of `heads`.
        heads: number of heads.
        n_tokens: number of tokens that the table is for.
        mask: False leaves the table out: plain attention, over any number of tokens.

    Raises:
        ValueError: if `heads` does not divide `dim`.
    """

    def __init__(self, dim: int, heads: int, n_tokens: int, mask: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width must be a multiple of the number of heads, got {dim} and {heads} heads")
        self.num_heads = heads
        self.scale = (dim // heads) ** -0.5
        self.att_mask: nn.Parameter | None = None
        if mask:
            self.att_mask = nn.Parameter(torch.empty(heads, n_tokens, n_tokens))
            nn.init.trunc_normal_(self.att_mask, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix `tokens` (N, T, dim); the same shape comes back.

        Raises:
            ValueError: if the table is for another number of tokens.
        """
        images, count, _ = tokens.shape
        by_head = self.qkv(tokens).reshape(images, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = by_head.unbind(0)
        if self.att_mask is None:
            mixed = functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        else:
            _check_count(self.att_mask, count)
            scores = position_aware_scores(query, key, self.att_mask.sigmoid(), self.scale)
            mixed = scores.softmax(dim=-1) @ value
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


def position_aware_scores(query: Tensor, key: Tensor, importance: Tensor, scale: float) -> Tensor:
    """Compute the scores before the softmax, q k^T * scale * importance.

    Args:
        query: (N, heads, T, d).
        key: (N, heads, T, d).
        importance: (heads, T, T), rows for queries and columns for keys.
        scale: usually 1 / sqrt(d).

    Returns:
        (N, heads, T, T).
    """
    return (query * scale) @ key.transpose(-2, -1) * importance


def resize_mask(mask: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table of positions bicubically, first over the positions of the keys, then over those of the queries.

    Args:
        mask: (heads, T, T) for T = height * width tokens of the grid `old`.
        old: height and width of the grid in tokens.
        new: height and width that are wanted.

    Raises:
        ValueError: if the table is not of the grid `old`.
    """
    count = old[0] * old[1]
    if mask.shape[1:] != (count, count):
        raise ValueError(
            f"a mask for {old[0]} x {old[1]} tokens is {count} x {count}, got {mask.shape[1]} x {mask.shape[2]}"
        )
    if old == new:
        return mask
    resized = mask.to(torch.promote_types(mask.dtype, torch.float32))
    for _ in range(2):  # keys first; then, with rows as columns, queries
        grids = resized.reshape(len(mask), -1, *old)
        resized = functional.interpolate(grids, size=new, mode="bicubic").flatten(2).transpose(1, 2)
    return resized.to(mask.dtype).contiguous()


def convert_paas(model: nn.Module, blocks: int | Iterable[int]) -> nn.Module:
    """Give the attention of a timm vision transformer a table of positions; what the model answers does not change.

    As in `PAASAttention`, scores between patches are multiplied by a learnt factor. Here it is 2 sigmoid(att_mask) with
    a table that starts at 0, so that the factor starts at 1 and a trained model goes on as it was; sigmoid alone would
    halve its scores. Scores of class and register tokens, as queries and as keys, keep the factor 1. Keys stay as they
    are and `blocks.{i}.attn.att_mask` (heads, patches, patches) is new. Such layers compute explicit scores, which
    costs memory quadratic in the number of tokens.

    Args:
        model: a `timm.models.VisionTransformer`, or a model with one inside; it is changed.
        blocks: how many of the first blocks, or the indices of those to convert; converted ones are left as they are.

    Returns:
        The same model; "paas" is added to `model.robust_conversions`.

    Raises:
        TypeError: if there is no vision transformer inside, or a block has other attention than timm's plain one.
        ValueError: if no block is named, or one that does not exist.

    Examples:
        >>> import timm
        >>> model = convert_paas(timm.create_model("vit_tiny_patch16_224", img_size=64), blocks=5)
        >>> model.blocks[4].attn.att_mask.shape
        torch.Size([3, 16, 16])
    """
    prefix, vit = next(
        ((name, module) for name, module in model.named_modules() if isinstance(module, VisionTransformer)), ("", None)
    )
    if vit is None:
        raise TypeError(f"PAAS is added to a timm VisionTransformer, and {type(model).__name__} has none inside")
    depth = len(vit.blocks)
    chosen = list(range(blocks)) if isinstance(blocks, int) else list(blocks)
    if not chosen or not all(0 <= index < depth for index in chosen):
        raise ValueError(f"blocks of this model are 0 to {depth - 1}, got blocks={blocks}: name at least one of them")
    path = f"{prefix}.blocks" if prefix else "blocks"
    layers = {f"{path}.{index}.attn": getattr(vit.blocks[index], "attn", None) for index in chosen}
    for name, layer in layers.items():
        if type(layer) not in (Attention, PAASViTAttention):
            raise TypeError(f"{name} is a {type(layer).__name__}, and PAAS is added to timm's plain Attention only")
    fresh = {name: layer for name, layer in layers.items() if type(layer) is Attention}
    for layer in fresh.values():
        _add_mask(layer, vit.patch_embed.num_patches, vit.num_prefix_tokens)
    return record(model, "paas", fresh, {"blocks": tuple(chosen)})


class PAASViTAttention(Attention):
    """timm's attention with a table of positions for its patches; `convert_paas` makes it."""

    att_mask: nn.Parameter
    num_prefix_tokens: int

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Mix tokens (N, T, dim), of which the first are class and register tokens; the same shape comes back.

        Raises:
            ValueError: if the table is for another number of tokens.
        """
        images, count, _ = x.shape
        _check_count(self.att_mask, count - self.num_prefix_tokens)
        query, key, value = self.qkv(x).reshape(images, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        before = self.num_prefix_tokens
        importance = functional.pad(2 * self.att_mask.sigmoid(), (before, 0, before, 0), value=1.0)
        scores = position_aware_scores(self.q_norm(query), self.k_norm(key), importance, self.scale)
        scores = maybe_add_mask(scores, resolve_self_attn_mask(count, scores, attn_mask, is_causal))
        mixed = self.attn_drop(scores.softmax(dim=-1)) @ value
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        projected: Tensor = self.proj_drop(self.proj(mixed))
        return projected


def _add_mask(layer: Attention, patches: int, num_prefix_tokens: int) -> None:
    """Turn the layer into a `PAASViTAttention` where it is: hooks, mode and tied or frozen weights stay."""
    layer.__class__ = PAASViTAttention
    layer.num_prefix_tokens = num_prefix_tokens  # type: ignore[assignment]
    layer.att_mask = nn.Parameter(layer.qkv.weight.new_zeros(layer.num_heads, patches, patches))


def _check_count(mask: Tensor, tokens: int) -> None:
    if mask.shape[-1] != tokens:
        raise ValueError(
            f"this attention has a mask for {mask.shape[-1]} tokens, got {tokens}: give images of the size that the "
            "model was built for, or resize the mask"
        )
