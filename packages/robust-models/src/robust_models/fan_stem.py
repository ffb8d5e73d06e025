"""How a fully attentional network (FAN), arXiv:2204.12451, cuts images into tokens."""

from functools import partial

from timm.layers.norm import LayerNorm2d
from timm.models.convnext import ConvNeXtStage
from timm.models.xcit import ConvPatchEmbed
from torch import Tensor, nn

PATCH = 16


class ConvStem(ConvPatchEmbed):
    """Four strided convolutions, as in XCiT: one token per 16 x 16 pixels.

    Args:
        in_chans: channels of the images.
        dim: width of the tokens, a multiple of 8.
    """

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__(patch_size=PATCH, in_chans=in_chans, embed_dim=dim)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (N, C, H, W) into tokens (N, T, dim) and the height and width of their grid.

        Raises:
            ValueError: if a side is no multiple of 16.
        """
        check_size(images)
        x = self.proj(images)
        return x.flatten(2).transpose(1, 2), (x.shape[-2], x.shape[-1])


class HybridStem(nn.Module):
    """The first two stages of a ConvNeXt and a 2 x 2 convolution: one token per 16 x 16 pixels.

    Args:
        in_chans: channels of the images.
        dim: width of the tokens.
        depths: blocks of the two stages.
    """

    def __init__(self, in_chans: int, dim: int, depths: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        self.backbone = _ConvNeXtFront(in_chans, depths)
        self.proj = nn.Conv2d(256, dim, 2, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (N, C, H, W) into tokens (N, T, dim) and the height and width of their grid.

        Raises:
            ValueError: if a side is no multiple of 16.
        """
        check_size(images)
        x = self.proj(self.backbone(images))
        return x.flatten(2).transpose(1, 2), (x.shape[-2], x.shape[-1])


class _ConvNeXtFront(nn.Module):
    """Stem and two stages (128 and 256 wide) of a ConvNeXt, Liu et al., CVPR 2022, arXiv:2201.03545."""

    def __init__(self, in_chans: int, depths: tuple[int, int]) -> None:
        super().__init__()
        norm = partial(LayerNorm2d, eps=1e-6)
        stage = partial(ConvNeXtStage, ls_init_value=1e-6, conv_mlp=True, norm_layer=norm)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 128, 4, stride=4), norm(128))
        self.stages = nn.Sequential(
            stage(128, 128, stride=1, depth=depths[0]), stage(128, 256, stride=2, depth=depths[1])
        )
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(images))
        return features


def check_size(images: Tensor, patch: int = PATCH) -> None:  # an argument: TorchScript knows no global names
    """Raise ValueError if a side of the images is no multiple of 16, so that no pixel is left out or made up."""
    height, width = images.shape[-2:]
    if height % patch != 0 or width % patch != 0:
        rows, columns = max(1, (height + patch // 2) // patch), max(1, (width + patch // 2) // patch)
        raise ValueError(
            f"this network takes images whose sides are multiples of {patch} pixels, got {height} x {width}: resize "
            f"them, for example to {rows * patch} x {columns * patch}"
        )


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
