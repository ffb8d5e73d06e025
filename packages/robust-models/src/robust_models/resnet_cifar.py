"""ResNets for CIFAR: the usual ones, with a 3 x 3 stem and without max-pool."""

from collections.abc import Sequence
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


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a shortcut, ReLU after the first and after the sum.

    Args:
        in_channels: of the map that comes in.
        out_channels: of the map that goes out.
        stride: of the first convolution and of the shortcut.
        drop_path: chance in training, per image, to leave the convolutions out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(self.drop_path(residual) + self.shortcut(x))


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1, the first two a quarter as wide; otherwise as `BasicBlock`.

    Args:
        in_channels: of the map that comes in.
        out_channels: of the map that goes out, a multiple of 4.
        stride: of the 3 x 3 convolution and of the shortcut.
        drop_path: chance in training, per image, to leave the convolutions out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        width = out_channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        residual = functional.relu(self.bn1(self.conv1(x)))
        residual = functional.relu(self.bn2(self.conv2(residual)))
        return functional.relu(self.drop_path(self.bn3(self.conv3(residual))) + self.shortcut(x))


class CifarResNet(StagedNetwork):
    """A ResNet for images of 32 x 32: stem of 3 x 3 and stride 1, no max-pool.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, with the stages of its
    ImageNet networks. Names are those of the files on RobustBench (Engstrom et al. 2019, Addepalli et al.,
    arXiv:2210.15318). The bottleneck has its stride in the 3 x 3 convolution, other than in the paper.

    Args:
        block: `BasicBlock` for depths 18 and 34, `Bottleneck` for the others.
        depths: blocks of the four stages.
        num_classes: number of logits; 0 returns the averaged features, 512 or 2048.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).

    Raises:
        ValueError: for other than four positive depths, or a rate outside of [0, 1).
    """

    classifier_name = "linear"
    stem_pattern = r"^(?:conv1|bn1)\."
    stage_pattern = r"^layer(\d+)\."
    block_pattern = r"^layer(\d+)\.(\d+)\."

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"depths takes the number of blocks of four stages, got {tuple(depths)}")
        first = 256 if block is Bottleneck else 64
        stages = [
            Stage(f"layer{level + 1}", depth, first * 2**level, 1 if level == 0 else 2)
            for level, depth in enumerate(depths)
        ]
        super().__init__(stages, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(
            block, stages, stem_channels=64, drop_path_rate=drop_path_rate
        )
        self.linear = linear_classifier(self.num_features, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """Convolution, batch norm and ReLU."""
        return functional.relu(self.bn1(self.conv1(images)))

    def finish(self, maps: Tensor) -> Tensor:
        """Nothing: the blocks end with ReLU."""
        return maps


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A 1 x 1 convolution with batch norm where the shape changes, otherwise the identity."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


default_cfgs = generate_default_cfgs(
    {
        "resnet18_cifar.untrained": cifar_config("conv1", "linear"),
        "resnet50_cifar.untrained": cifar_config("conv1", "linear"),
    }
)


@register_model
def resnet18_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """ResNet-18 for CIFAR: 11,173,962 parameters."""
    return build_staged(CifarResNet, "resnet18_cifar", pretrained, options)


@register_model
def resnet50_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """ResNet-50 for CIFAR: 23,520,842 parameters."""
    return build_staged(
        CifarResNet, "resnet50_cifar", pretrained, {"block": Bottleneck, "depths": (3, 4, 6, 3), **options}
    )
