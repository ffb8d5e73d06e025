"""Wide ResNets for CIFAR, with the names of the TRADES files."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.layers.drop import DropPath
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from robust_models.key_mapping import drop_sub_block1
from robust_models.staged_network import (
    Stage,
    StagedNetwork,
    build_staged,
    cifar_config,
    linear_classifier,
    residual_stages,
)


class WideBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind batch norm and ReLU, beside a shortcut.

    Where the width changes, the shortcut is a 1 x 1 convolution of the map behind the first batch norm and ReLU.

    Args:
        in_channels: of the map that comes in.
        out_channels: of the map that goes out.
        stride: of the first convolution and of the shortcut.
        drop_path: chance in training, per image, to leave the convolutions out.
        drop_rate: dropout between the two convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, drop_path: float = 0.0, *, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        reshapes = stride != 1 or in_channels != out_channels
        self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if reshapes else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = functional.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        residual = functional.relu(self.bn2(self.conv1(activated)))
        residual = self.conv2(functional.dropout(residual, self.drop_rate, self.training))
        return self.drop_path(residual) + shortcut  # type: ignore[no-any-return]


class WideResNet(StagedNetwork):
    """A pre-activation ResNet with few and wide layers, for images of 32 x 32.

    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146, with the names and the start of the
    weights of Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy" (TRADES), ICML 2019,
    arXiv:1901.08573: convolutions N(0, 2 / (k^2 out_channels)), classifier bias 0.

    Args:
        depth: number of convolutions on the longest way, 6 n + 4 for n blocks in each of three stages.
        width: factor of the 16, 32 and 64 channels of the stages.
        num_classes: number of logits; 0 returns the 64 * width averaged features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        block_drop_rate: dropout between the convolutions of a block, which is the dropout of the paper, in [0, 1).

    Raises:
        ValueError: for another depth or width, or a rate outside of [0, 1).
    """

    classifier_name = "fc"
    blocks_name = "layer"
    stem_pattern = r"^conv1\."
    stage_pattern = r"^block(\d+)\."
    block_pattern = r"^block(\d+)\.layer\.(\d+)\."

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        block_drop_rate: float = 0.0,
    ) -> None:
        if not 0 <= block_drop_rate < 1:
            raise ValueError(f"block_drop_rate must lie in [0, 1), got {block_drop_rate}")
        stages = wide_stages(("block1", "block2", "block3"), depth, width)
        super().__init__(stages, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1, self.block2, self.block3 = (
            nn.Sequential(OrderedDict(layer=blocks))
            for blocks in residual_stages(
                partial(WideBlock, drop_rate=block_drop_rate), stages, stem_channels=16, drop_path_rate=drop_path_rate
            )
        )
        self.bn1 = nn.BatchNorm2d(self.num_features)
        self.fc = linear_classifier(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def stem(self, images: Tensor) -> Tensor:
        """The first convolution."""
        return self.conv1(images)  # type: ignore[no-any-return]

    def finish(self, maps: Tensor) -> Tensor:
        """Batch norm and ReLU."""
        return functional.relu(self.bn1(maps))


def wide_stages(names: tuple[str, str, str], depth: int, width: int) -> list[Stage]:
    """The three stages of a wide ResNet.

    Raises:
        ValueError: if `depth` is not 6 n + 4 for a positive n, or `width` not positive.
    """
    if depth < 10 or (depth - 4) % 6 or width < 1:
        raise ValueError(
            f"a wide ResNet has depth 10, 16, 22, 28, 34, ... (6 n + 4) and a positive width, got depth={depth}, "
            f"width={width}"
        )
    return [
        Stage(name, (depth - 4) // 6, 16 * 2**level * width, 1 if level == 0 else 2) for level, name in enumerate(names)
    ]


def checkpoint_filter(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drop the copy of the first stage that some of the published files hold under `sub_block1`, and never use."""
    return drop_sub_block1(dict(state_dict), model.state_dict().keys())


_build = partial(build_staged, WideResNet, stages=3, checkpoint_filter=checkpoint_filter)

default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": cifar_config("conv1", "fc")
        for name in ("wrn", "wrn_28_10", "wrn_34_10", "wrn_34_15", "wrn_34_20", "wrn_70_16")
    }
)


@register_model
def wrn(pretrained: bool = False, sub_block1: bool = False, **options: Any) -> WideResNet:  # noqa: ARG001
    """A wide ResNet of any `depth` and `width`; `sub_block1`, of the registry of weights, makes no difference."""
    return _build("wrn", pretrained, options)


@register_model
def wrn_28_10(pretrained: bool = False, **options: Any) -> WideResNet:
    """Wide ResNet of depth 28 and width 10: 36,479,194 parameters."""
    return _build("wrn_28_10", pretrained, {"depth": 28, "width": 10, **options})


@register_model
def wrn_34_10(pretrained: bool = False, **options: Any) -> WideResNet:
    """Wide ResNet of depth 34 and width 10: 46,160,474 parameters."""
    return _build("wrn_34_10", pretrained, {"depth": 34, "width": 10, **options})


@register_model
def wrn_34_15(pretrained: bool = False, **options: Any) -> WideResNet:
    """Wide ResNet of depth 34 and width 15."""
    return _build("wrn_34_15", pretrained, {"depth": 34, "width": 15, **options})


@register_model
def wrn_34_20(pretrained: bool = False, **options: Any) -> WideResNet:
    """Wide ResNet of depth 34 and width 20: 184,531,674 parameters."""
    return _build("wrn_34_20", pretrained, {"depth": 34, "width": 20, **options})


@register_model
def wrn_70_16(pretrained: bool = False, **options: Any) -> WideResNet:
    """Wide ResNet of depth 70 and width 16: 266,796,506 parameters."""
    return _build("wrn_70_16", pretrained, {"depth": 70, "width": 16, **options})
