"""Pre-activation ResNets for CIFAR."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers.drop import DropPath
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from robust_models.staged_network import (
    Stage,
    StagedNetwork,
    build_staged,
    cifar_config,
    linear_classifier,
    residual_stages,
)


class PreActBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind batch norm and ReLU, beside a shortcut.

    Args:
        in_channels: of the map that comes in.
        out_channels: of the map that goes out.
        stride: of the first convolution and of the shortcut.
        drop_path: chance in training, per image, to leave the convolutions out.
        shortcut_of_activation: where the shape changes, the 1 x 1 convolution of the shortcut sees the map behind the
            first batch norm and ReLU (V2) rather than the one that comes in.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        drop_path: float = 0.0,
        *,
        shortcut_of_activation: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut_of_activation = shortcut_of_activation
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        reshapes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)) if reshapes else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = functional.relu(self.bn1(x))
        shortcut = x
        if self.shortcut is not None:
            shortcut = self.shortcut(activated if self.shortcut_of_activation else x)
        residual = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        return self.drop_path(residual) + shortcut  # type: ignore[no-any-return]


class PreActResNet(StagedNetwork):
    """A ResNet with batch norm and ReLU before each convolution, for images of 32 x 32, with a 3 x 3 stem.

    He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv:1603.05027. Names and details are those
    of the files of Wong et al. (arXiv:2001.03994), Andriushchenko and Flammarion (arXiv:2007.02617) and, with both
    options on, of the L2 model of Rice et al. (arXiv:2002.11569), as RobustBench has them. Without `bn_before_fc`
    nothing stands between the last sum and the mean, other than in the paper.

    Args:
        depths: blocks of the four stages of 64, 128, 256 and 512 channels.
        num_classes: number of logits; 0 returns the 512 averaged features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        shortcut_of_activation: see `PreActBlock`; called V2 elsewhere.
        bn_before_fc: batch norm and ReLU after the last block.

    Raises:
        ValueError: for other than four positive depths, or a rate outside of [0, 1).
    """

    classifier_name = "linear"
    stem_pattern = r"^conv1\."
    stage_pattern = r"^layer(\d+)\."
    block_pattern = r"^layer(\d+)\.(\d+)\."

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        shortcut_of_activation: bool = False,
        bn_before_fc: bool = False,
    ) -> None:
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"depths takes the number of blocks of four stages, got {tuple(depths)}")
        stages = [
            Stage(f"layer{level + 1}", depth, 64 * 2**level, 1 if level == 0 else 2)
            for level, depth in enumerate(depths)
        ]
        super().__init__(stages, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        make_block = partial(PreActBlock, shortcut_of_activation=shortcut_of_activation)
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(
            make_block, stages, stem_channels=64, drop_path_rate=drop_path_rate
        )
        self.bn = nn.BatchNorm2d(self.num_features) if bn_before_fc else None
        self.linear = linear_classifier(self.num_features, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """The first convolution."""
        return self.conv1(images)  # type: ignore[no-any-return]

    def finish(self, maps: Tensor) -> Tensor:
        """Batch norm and ReLU, where there are any."""
        return maps if self.bn is None else functional.relu(self.bn(maps))


default_cfgs = generate_default_cfgs(
    {
        "preact_resnet18.untrained": cifar_config("conv1", "linear"),
        "preact_resnet18_bn.untrained": cifar_config("conv1", "linear"),
    }
)


@register_model
def preact_resnet18(pretrained: bool = False, **options: Any) -> PreActResNet:
    """PreAct-ResNet-18 for CIFAR: 11,171,146 parameters."""
    return build_staged(PreActResNet, "preact_resnet18", pretrained, options)


@register_model
def preact_resnet18_bn(pretrained: bool = False, **options: Any) -> PreActResNet:
    """PreAct-ResNet-18 of Rice et al. for L2, with a last batch norm: 11,172,170 parameters."""
    return build_staged(
        PreActResNet,
        "preact_resnet18_bn",
        pretrained,
        {"shortcut_of_activation": True, "bn_before_fc": True, **options},
    )
