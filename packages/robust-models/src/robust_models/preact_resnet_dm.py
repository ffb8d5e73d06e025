"""PreAct-ResNets for CIFAR as DeepMind trained them, with the mean/std step inside."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers.drop import DropPath
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from robust_models.built_in_normalize import BuiltInNormalize
from robust_models.staged_network import (
    Stage,
    StagedNetwork,
    build_staged,
    cifar_config,
    linear_classifier,
    residual_stages,
)
from robust_models.wide_resnet_dm import Activation, activation, same_conv3x3

_DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class PreActBlockDM(nn.Module):
    """Two 3 x 3 convolutions, each behind batch norm and activation, beside a shortcut.

    Convolutions with stride pad as TensorFlow does, where the size is even only on the right and at the bottom. Where
    the shape changes, the shortcut is a 3 x 3 convolution of the map that comes in.

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
        self.conv_2d_1 = same_conv3x3(in_channels, out_channels, stride)
        self.batchnorm_1 = nn.BatchNorm2d(out_channels)
        self.conv_2d_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        reshapes = stride != 1 or in_channels != out_channels
        self.shortcut = same_conv3x3(in_channels, out_channels, stride) if reshapes else None
        self.act = activation(act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        residual = self.conv_2d_1(self.act(self.batchnorm_0(x)))
        residual = self.conv_2d_2(self.act(self.batchnorm_1(residual)))
        return self.drop_path(residual) + shortcut  # type: ignore[no-any-return]


class PreActResNetDM(StagedNetwork):
    """A pre-activation ResNet that takes images in [0, 1] and normalises them itself.

    Rebuffi et al., "Fixing Data Augmentation to Improve Adversarial Robustness", 2021, arXiv:2103.01946, with the
    names of its PyTorch files; He et al., ECCV 2016, arXiv:1603.05027, has 1 x 1 shortcuts instead.

    Args:
        depth: 10, 18 or 34.
        num_classes: number of logits; 0 returns the 512 averaged features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        act: "silu", as in nearly all published files, or "relu".
        mean: of the pixels, per channel; None takes that of CIFAR-10, see `BuiltInNormalize`.
        std: of the pixels, per channel.

    Raises:
        ValueError: for another depth or activation, a rate outside of [0, 1), or values that are not a mean and std for
            each channel.
    """

    classifier_name = "logits"
    stem_pattern = r"^conv_2d\."
    stage_pattern = r"^layer_(\d+)\."
    block_pattern = r"^layer_(\d+)\.(\d+)\."

    def __init__(
        self,
        depth: int = 18,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act: Activation = "relu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if depth not in _DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth}")
        stages = [
            Stage(f"layer_{level}", blocks, 64 * 2**level, 1 if level == 0 else 2)
            for level, blocks in enumerate(_DEPTHS[depth])
        ]
        super().__init__(stages, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        self.normalize = BuiltInNormalize(in_chans, mean, std)
        self.conv_2d = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        self.layer_0, self.layer_1, self.layer_2, self.layer_3 = residual_stages(
            partial(PreActBlockDM, act=act), stages, stem_channels=64, drop_path_rate=drop_path_rate
        )
        self.batchnorm = nn.BatchNorm2d(self.num_features)
        self.act = activation(act)
        self.logits = linear_classifier(self.num_features, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """The normalisation and the first convolution."""
        return self.conv_2d(self.normalize(images))  # type: ignore[no-any-return]

    def finish(self, maps: Tensor) -> Tensor:
        """Batch norm and activation."""
        return self.act(self.batchnorm(maps))  # type: ignore[no-any-return]


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": cifar_config("conv_2d", "logits")
        for name in ("preact_resnet_dm", "preact_resnet18_dm", "preact_resnet18_dm_silu")
    }
)


@register_model
def preact_resnet_dm(pretrained: bool = False, **options: Any) -> PreActResNetDM:
    """A PreAct-ResNet of `depth` 10, 18 or 34 that normalises its input, with ReLU unless `act` says otherwise."""
    return build_staged(PreActResNetDM, "preact_resnet_dm", pretrained, options)


@register_model
def preact_resnet18_dm(pretrained: bool = False, **options: Any) -> PreActResNetDM:
    """Depth 18: 12,548,426 parameters."""
    return build_staged(PreActResNetDM, "preact_resnet18_dm", pretrained, {"depth": 18, **options})


@register_model
def preact_resnet18_dm_silu(pretrained: bool = False, **options: Any) -> PreActResNetDM:
    """Depth 18 with SiLU: 12,548,426 parameters."""
    return build_staged(PreActResNetDM, "preact_resnet18_dm_silu", pretrained, {"depth": 18, "act": "silu", **options})
