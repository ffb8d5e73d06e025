"""The encoder and the decoder of VQGAN."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm over 32 groups."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind group norm and SiLU, beside the identity or a 1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        residual = self.conv1(functional.silu(self.norm1(x)))
        residual = self.conv2(functional.silu(self.norm2(residual)))
        return self.nin_shortcut(x) + residual  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Self-attention of one head over all cells of a map, behind group norm, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halve a map by a 3 x 3 convolution of stride 2 that pads with zeros on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, channels, h / 2, w / 2)."""
        return self.conv(functional.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Double a map by repeating its cells, then convolve it by 3 x 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, channels, 2 h, 2 w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Level(nn.Module):
    """The blocks at one resolution, each followed by attention where there is any, then the change of resolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth: int,
        attention: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * depth
        self.block = nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
        self.attn = nn.ModuleList(AttentionBlock(out_channels) for _ in range(depth if attention else 0))
        if downsample:
            self.downsample = Downsample(out_channels)
        if upsample:
            self.upsample = Upsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to out_channels and the next resolution."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


def middle(channels: int) -> nn.Sequential:
    """What stands at the lowest resolution: block, attention, block."""
    return nn.Sequential(
        OrderedDict(
            block_1=ResidualBlock(channels, channels),
            attn_1=AttentionBlock(channels),
            block_2=ResidualBlock(channels, channels),
        )
    )


class Encoder(nn.Module):
    """Images in [-1, 1] to a map of latent vectors, at 1 / 2^(levels - 1) of the resolution.

    Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021, arXiv:2012.09841.

    Args:
        widths: channels of the levels, from the finest to the coarsest, which has attention; multiples of 32.
        latent_width: channels that go out.
        in_chans: channels of the images.
    """

    def __init__(self, widths: Sequence[int], latent_width: int, in_chans: int = 3) -> None:
        super().__init__()
        last = len(widths) - 1
        before = [widths[0], *widths]
        self.conv_in = nn.Conv2d(in_chans, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(before[level], width, depth=2, attention=level == last, downsample=level != last)
            for level, width in enumerate(widths)
        )
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], latent_width, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) to (N, latent_width, h, w)."""
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(functional.silu(self.norm_out(self.mid(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The way back from latent vectors to images: the levels of `Encoder` in reverse, with three blocks each.

    Args:
        widths: channels of the levels, from the finest to the coarsest, as in `Encoder`.
        latent_width: channels that come in.
        out_chans: channels of the images.
    """

    def __init__(self, widths: Sequence[int], latent_width: int, out_chans: int = 3) -> None:
        super().__init__()
        last = len(widths) - 1
        before = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(latent_width, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1])
        self.up = nn.ModuleList(
            Level(before[level], width, depth=3, attention=level == last, upsample=level != 0)
            for level, width in enumerate(widths)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_chans, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map (N, latent_width, h, w) to images (N, out_chans, H, W), roughly in [-1, 1]."""
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(functional.silu(self.norm_out(x)))  # type: ignore[no-any-return]
