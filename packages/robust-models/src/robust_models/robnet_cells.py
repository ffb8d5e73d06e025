"""The cells of RobNets and the operations on their edges."""

from collections import OrderedDict
from functools import reduce
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional


class SepConv(nn.Module):
    """ReLU, depth-wise 3 x 3 and 1 x 1 convolution, batch norm, all of it twice; the first may be strided."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_separable(channels, stride), *_separable(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.op(x)
        return y


class FactorizedReduce(nn.Module):
    """Halve the map by two strided 1 x 1 convolutions, the second one a pixel further down and right.

    Odd maps get a row or column of zeros for the second; the published code fails there.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, out_channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        x = functional.relu(x)
        shifted = functional.pad(x, (-1, 1, -1, 1))
        y: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], 1))
        return y


class ResidualSepConv(nn.Module):
    """`SepConv` plus its input; where it is strided, plus the input halved by `FactorizedReduce`."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = SepConv(channels, stride)
        self.res = _identity(channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(x) + self.res(x)
        return y


class Zero(nn.Module):
    """Nothing, in the shape of the other operations: zeros even where the input is infinite or NaN."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> zeros (N, C, ceil(H / stride), ceil(W / stride))."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Cell(nn.Module):
    """Four nodes that each sum the operations on their edges from the two previous cells and the nodes before.

    Args:
        channels: widths of the last but one cell's output, of the last cell's, and of the nodes here.
        genotype: 14 digits, ordered by target node: 2 edges into the first node, then 3, 4 and 5.
        reduction: halve the map: the edges from the two previous cells have stride 2.
        after_reduction: the last cell halved its map, so that the output of the one before is twice as large.
        drop_path: probability that an edge is left out for an image in training; bare identities stay.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        genotype: tuple[int, ...],
        reduction: bool,
        after_reduction: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        before_last, last, width = channels
        self.preprocess0 = (
            FactorizedReduce(before_last, width) if after_reduction else _relu_conv_bn(before_last, width)
        )
        self.preprocess1 = _relu_conv_bn(last, width)
        sources = [source for node in range(4) for source in range(2 + node)]
        strides = [2 if reduction and source < 2 else 1 for source in sources]
        self._ops = nn.ModuleList(_edge(code, width, stride) for code, stride in zip(genotype, strides, strict=True))
        self.drop_path = DropPath(drop_path)

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Return the four nodes side by side (N, 4 * width, H, W), from the outputs of the two previous cells."""
        states = [self.preprocess0(before_last), self.preprocess1(last)]
        edges = iter(self._ops)
        for _ in range(4):
            states.append(reduce(torch.add, [self._along(next(edges), state) for state in states]))
        return torch.cat(states[2:], 1)

    def _along(self, edge: Any, state: Tensor) -> Tensor:
        y: Tensor = edge(state)
        return y if isinstance(edge.op, nn.Identity) else self.drop_path(y)


def _separable(channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=False),
    ]


def _identity(channels: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


def _relu_conv_bn(channels: int, out_channels: int) -> nn.Module:
    layers = [nn.ReLU(), nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels, affine=False)]
    return nn.Sequential(OrderedDict(op=nn.Sequential(*layers)))


def _edge(code: int, channels: int, stride: int) -> nn.Module:
    operation: nn.Module
    match code:
        case 0:
            operation = Zero(stride)
        case 1:
            operation = SepConv(channels, stride)
        case 2:
            operation = _identity(channels, stride)
        case _:
            operation = ResidualSepConv(channels, stride)
    return nn.Sequential(OrderedDict(op=operation))
