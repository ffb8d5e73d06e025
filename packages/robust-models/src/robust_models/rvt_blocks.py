"""The parts of a Robust Vision Transformer, arXiv:2105.07926."""

from collections.abc import Iterable

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models import checkpoint
from torch import Tensor, nn

from robust_models.layers.paas import PAASAttention


class ConvStem(nn.Module):
    """Cut images into one token per 16 x 16 pixels by convolutions, without an activation between them.

    Args:
        in_chans: channels of the images.
        dim: width of the tokens.
    """

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, 32, 7, stride=2, padding=2),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(32, dim, 4, stride=4),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into a map (N, dim, H / 16, W / 16)."""
        tokens: Tensor = self.proj(images)
        return tokens


class ConvFeedForward(nn.Module):
    """A feed-forward layer that sees neighbours: a depth-wise 3 x 3 convolution between its two 1 x 1 convolutions.

    Args:
        dim: width of the tokens.
        hidden: width between the two layers.
        drop: dropout after the first activation and at the end, in [0, 1).
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.bn3 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map (N, dim, H, W); the same shape comes back."""
        x = self.drop(self.act(self.bn1(self.fc1(x))))
        x = self.act(self.bn2(self.dwconv(x)))
        transformed: Tensor = self.drop(self.bn3(self.fc2(x)))
        return transformed


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a layer norm and beside a shortcut.

    Args:
        dim: width of the tokens.
        num_heads: heads of the attention.
        n_tokens: number of tokens that a mask is for.
        mask: scale the attention by position.
        conv_ffn: let the feed-forward layer see neighbours.
        drop: dropout in the feed-forward layer, in [0, 1).
        drop_path: probability of leaving out each of the two for an image, in [0, 1).
    """

    def __init__(
        self, dim: int, num_heads: int, n_tokens: int, *, mask: bool, conv_ffn: bool, drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PAASAttention(dim, num_heads, n_tokens, mask)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.conv_ffn = conv_ffn
        self.mlp = ConvFeedForward(dim, 4 * dim, drop) if conv_ffn else Mlp(dim, 4 * dim, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform tokens (N, height * width, dim); the same shape comes back."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y = self.norm2(x)
        y = to_tokens(self.mlp(to_map(y, height, width))) if self.conv_ffn else self.mlp(y)
        transformed: Tensor = x + self.drop_path(y)
        return transformed


class Stage(nn.Module):
    """Blocks on one grid of tokens.

    Args:
        blocks: in the order of the computation.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map (N, dim, H, W); the same shape comes back."""
        height, width = x.shape[-2:]
        tokens = to_tokens(x)
        for block in self.blocks:
            if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
                tokens = checkpoint(block, tokens, height, width)
            else:
                tokens = block(tokens, height, width)
        return to_map(tokens, height, width)

    def step(self, block: nn.Module, x: Tensor) -> Tensor:
        """Apply one of the blocks to a map (N, dim, H, W); the same shape comes back."""
        height, width = x.shape[-2:]
        arguments = (to_tokens(x), height, width)
        tokens = checkpoint(block, *arguments) if self.grad_checkpointing else block(*arguments)
        return to_map(tokens, height, width)


class TokenPool(nn.Module):
    """Halve the grid of tokens by a depth-wise convolution that widens them.

    Args:
        dim: width of the tokens.
        dim_out: width afterwards, a multiple of `dim`.
    """

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, stride=2, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a map (N, dim, H, W) into (N, dim_out, ceil(H / 2), ceil(W / 2))."""
        pooled: Tensor = self.conv(x)
        return pooled


def to_tokens(x: Tensor) -> Tensor:
    """Lay a map (N, dim, H, W) out as tokens (N, H * W, dim)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """Lay tokens (N, height * width, dim) out as a map (N, dim, height, width)."""
    return x.transpose(1, 2).reshape(len(x), -1, height, width)
