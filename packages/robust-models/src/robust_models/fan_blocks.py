"""The block of a fully attentional network (FAN), arXiv:2204.12451."""

import math

import torch
from timm.layers.drop import DropPath
from timm.models.xcit import LPI
from torch import Tensor, nn
from torch.nn import functional


class TokenAttention(nn.Module):
    """Multi-head self-attention between tokens.

    Args:
        dim: width of the tokens, a multiple of `num_heads`.
        num_heads: number of heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens (N, T, dim); the same shape comes back."""
        images, count, _ = x.shape
        query = self.q(x).reshape(images, count, self.num_heads, -1).transpose(1, 2)
        key, value = self.kv(x).reshape(images, count, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class NeighbourMlp(nn.Module):
    """Two linear layers around a residual of depth-wise convolutions, which takes the place of the activation.

    Args:
        dim: width of the tokens.
        hidden: width between the two layers.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(hidden))
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = LPI(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform tokens (N, height * width, dim); the same shape comes back."""
        x = self.fc1(x)
        transformed: Tensor = self.fc2(x + self.gamma * self.dwconv(x, height, width))
        return transformed


class ChannelAttention(nn.Module):
    """Efficient channel attention: scale every channel by how much it agrees with what its head looks at.

    Channels are compared with a prototype of the tokens, the mean over channels of their softmax over tokens, instead
    of with each other, so that the cost is linear in the width.

    Args:
        dim: width of the tokens, a multiple of `num_heads`.
        num_heads: number of heads.
        mlp_ratio: width between the layers that compute the values, in units of `dim`.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.mlp_v = NeighbourMlp(dim, int(mlp_ratio * dim))
        self.norm_v = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform tokens (N, height * width, dim); the same shape comes back."""
        images, count, _ = x.shape
        query = self.q(x).softmax(dim=1).reshape(images, count, self.num_heads, -1)
        prototype = x.softmax(dim=1).reshape(images, count, self.num_heads, -1).mean(dim=-1)
        agreement = torch.einsum("nthc,nth->nhc", query, prototype).sigmoid() * self.temperature.squeeze(-1)
        scaled: Tensor = agreement.flatten(1).unsqueeze(1) * self.norm_v(self.mlp_v(x, height, width))
        return scaled


class FANBlock(nn.Module):
    """Attention between tokens and attention between channels, each scaled, behind a layer norm and beside a shortcut.

    Args:
        dim: width of the tokens, a multiple of `num_heads`.
        num_heads: heads of both kinds of attention.
        eta: start of the two scales.
        drop_path: probability of leaving out each of the two for an image, in [0, 1).
    """

    def __init__(self, dim: int, num_heads: int, eta: float = 1.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.gamma1 = nn.Parameter(torch.full((dim,), eta))
        self.gamma2 = nn.Parameter(torch.full((dim,), eta))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = TokenAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = ChannelAttention(dim, num_heads)
        self.drop_path = DropPath(drop_path)
        self.apply(_initialise)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform tokens (N, height * width, dim); the same shape comes back."""
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        transformed: Tensor = x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x), height, width))
        return transformed


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2d):  # depth-wise: each output channel sees one kernel
        nn.init.normal_(layer.weight, std=math.sqrt(2 / math.prod(layer.kernel_size)))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
