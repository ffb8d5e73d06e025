"""Wide ResNets for CIFAR as DeepMind trained them, with the mean/std step inside."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.drop import DropPath
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from robust_models.built_in_normalize import BuiltInNormalize
from robust_models.staged_network import StagedNetwork, build_staged, cifar_config, linear_classifier, residual_stages
from robust_models.wide_resnet import wide_stages

Activation = Literal["relu", "silu"]


class WideBlockDM(nn.Module):
    """Two 3 x 3 convolutions, each behind batch norm and activation, beside a shortcut.

    The convolution with stride pads as TensorFlow does, where the size is even only on the right and at the bottom.
    Where the shape changes, the shortcut is a 1 x 1 convolution of the map behind the first activation.

    Args:
        in_channels: of the map that comes in.
        out_channels: of the map that goes out.
        stride: of the first convolution and of the shortcut.
        drop_path: chance in training, per image, to leave the convolutions out.
        act: "relu" or "silu".
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, drop_path: float = 0.0, *, act: Activation = "relu"
    ) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(in_channels)
        self.conv_0 = same_conv3x3(in_channels, out_channels, stride)
        self.batchnorm_1 = nn.BatchNorm2d(out_channels)
        self.conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        reshapes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if reshapes else None
        self.act = activation(act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = self.act(self.batchnorm_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        residual = self.conv_1(self.act(self.batchnorm_1(self.conv_0(activated))))
        return self.drop_path(residual) + shortcut  # type: ignore[no-any-return]


class WideResNetDM(StagedNetwork):
    """A wide ResNet that takes images in [0, 1] and normalises them itself.

    Gowal et al., "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples", 2020,
    arXiv:2010.03593, with the names of its PyTorch files. It has the size of `WideResNet` and pads otherwise.

    Args:
        depth: number of convolutions on the longest way, 6 n + 4 for n blocks in each of three stages.
        width: factor of the 16, 32 and 64 channels of the stages.
        num_classes: number of logits; 0 returns the 64 * width averaged features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        act: "silu", as in nearly all published files, or "relu".
        mean: of the pixels, per channel; None takes that of CIFAR-10, see `BuiltInNormalize`.
        std: of the pixels, per channel.

    Raises:
        ValueError: for another depth, width or activation, a rate outside of [0, 1), or values that are not a mean and
            std for each channel.
    """

    classifier_name = "logits"
    blocks_name = "block"
    stem_pattern = r"^init_conv\."
    stage_pattern = r"^layer\.(\d+)\."
    block_pattern = r"^layer\.(\d+)\.block\.(\d+)\."

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act: Activation = "relu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        stages = wide_stages(("layer.0", "layer.1", "layer.2"), depth, width)
        super().__init__(stages, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        self.normalize = BuiltInNormalize(in_chans, mean, std)
        self.init_conv = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        built = residual_stages(partial(WideBlockDM, act=act), stages, stem_channels=16, drop_path_rate=drop_path_rate)
        self.layer = nn.Sequential(*(nn.Sequential(OrderedDict(block=blocks)) for blocks in built))
        self.batchnorm = nn.BatchNorm2d(self.num_features)
        self.act = activation(act)
        self.logits = linear_classifier(self.num_features, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """The normalisation and the first convolution."""
        return self.init_conv(self.normalize(images))  # type: ignore[no-any-return]

    def finish(self, maps: Tensor) -> Tensor:
        """Batch norm and activation."""
        return self.act(self.batchnorm(maps))  # type: ignore[no-any-return]


def same_conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    """A 3 x 3 convolution that pads as TensorFlow does: with stride 2 and an even size only right and at the bottom."""
    if stride == 1:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return Conv2dSame(in_channels, out_channels, 3, stride, bias=False)


def activation(name: Activation) -> nn.Module:
    """The layer of that name.

    Raises:
        ValueError: for another name.
    """
    if name not in ("relu", "silu"):
        raise ValueError(f'act must be "relu" or "silu", got {name!r}')
    return nn.ReLU() if name == "relu" else nn.SiLU()


_build = partial(build_staged, WideResNetDM, stages=3)

default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": cifar_config("init_conv", "logits")
        for name in (
            "wrn_dm",
            "wrn_28_10_dm",
            "wrn_28_10_dm_silu",
            "wrn_34_10_dm",
            "wrn_34_10_dm_silu",
            "wrn_70_16_dm",
            "wrn_70_16_dm_silu",
            "wrn_82_8_dm",
            "wrn_82_8_dm_silu",
            "wrn_94_16_dm",
            "wrn_94_16_dm_silu",
            "wrn_106_16_dm",
            "wrn_106_16_dm_silu",
        )
    }
)


@register_model
def wrn_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """A wide ResNet of any `depth` and `width` that normalises its input, with ReLU unless `act` says otherwise."""
    return _build("wrn_dm", pretrained, options)


@register_model
def wrn_28_10_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 28 and width 10: 36,479,194 parameters."""
    return _build("wrn_28_10_dm", pretrained, {"depth": 28, "width": 10, **options})


@register_model
def wrn_28_10_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 28 and width 10 with SiLU: 36,479,194 parameters."""
    return _build("wrn_28_10_dm_silu", pretrained, {"depth": 28, "width": 10, "act": "silu", **options})


@register_model
def wrn_34_10_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 34 and width 10: 46,160,474 parameters."""
    return _build("wrn_34_10_dm", pretrained, {"depth": 34, "width": 10, **options})


@register_model
def wrn_34_10_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 34 and width 10 with SiLU: 46,160,474 parameters."""
    return _build("wrn_34_10_dm_silu", pretrained, {"depth": 34, "width": 10, "act": "silu", **options})


@register_model
def wrn_70_16_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 70 and width 16: 266,796,506 parameters."""
    return _build("wrn_70_16_dm", pretrained, {"depth": 70, "width": 16, **options})


@register_model
def wrn_70_16_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 70 and width 16 with SiLU: 266,796,506 parameters."""
    return _build("wrn_70_16_dm_silu", pretrained, {"depth": 70, "width": 16, "act": "silu", **options})


@register_model
def wrn_82_8_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 82 and width 8: 79,125,466 parameters."""
    return _build("wrn_82_8_dm", pretrained, {"depth": 82, "width": 8, **options})


@register_model
def wrn_82_8_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 82 and width 8 with SiLU: 79,125,466 parameters."""
    return _build("wrn_82_8_dm_silu", pretrained, {"depth": 82, "width": 8, "act": "silu", **options})


@register_model
def wrn_94_16_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 94 and width 16: 365,915,610 parameters."""
    return _build("wrn_94_16_dm", pretrained, {"depth": 94, "width": 16, **options})


@register_model
def wrn_94_16_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 94 and width 16 with SiLU: 365,915,610 parameters."""
    return _build("wrn_94_16_dm_silu", pretrained, {"depth": 94, "width": 16, "act": "silu", **options})


@register_model
def wrn_106_16_dm(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 106 and width 16: 415,475,162 parameters."""
    return _build("wrn_106_16_dm", pretrained, {"depth": 106, "width": 16, **options})


@register_model
def wrn_106_16_dm_silu(pretrained: bool = False, **options: Any) -> WideResNetDM:
    """Depth 106 and width 16 with SiLU: 415,475,162 parameters."""
    return _build("wrn_106_16_dm_silu", pretrained, {"depth": 106, "width": 16, "act": "silu", **options})
