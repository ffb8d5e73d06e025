"""CrossNorm: images of a batch exchange the means and deviations of their channels, whole or in a box."""

import contextlib
import random
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from robust_models.layers.conversion import new_generator

Crop = Literal["neither", "style", "content", "both"]
Box = tuple[int, int, int, int]
"""Rows from the first to before the third number, columns from the second to before the fourth."""

MAX_DRAWS = 100


class CrossNorm(nn.Module):
    """Give every image the channel means and deviations of another one of the batch, in training and while active.

    Tang et al., "CrossNorm and SelfNorm for Generalization under Distribution Shifts", ICCV 2021, arXiv:2102.02811,
    section 3.1. A new layer is not active: `convert_cnsn` draws in every training step which layers are, and
    `crossnorm_active` decides it by hand. There are no parameters. Maps of a single pixel have no style and stay as
    they are.

    Args:
        crop: where the statistics come from, and go to: "style" takes them from a box of the other image, "content"
            changes a box of the image only, by the statistics of that box, "both" does both, "neither" uses whole maps.
            There is one box of a kind per batch.
        beta: positive; the share of a box in the map is drawn from Beta(beta, beta).
        box_threshold: smaller shares are drawn again, in [0, 1).
        lam: how much of the image stays, in [0, 1]: lam x + (1 - lam) y; None replaces it.
        shuffle_channels: take the style of each channel from another channel.
        generator: see `PermutedAdaIN`.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        crop: Crop = "neither",
        beta: float = 1.0,
        box_threshold: float = 0.1,
        lam: float | None = None,
        shuffle_channels: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if crop not in get_args(Crop):
            raise ValueError(f"crop must be one of {get_args(Crop)}, got {crop!r}")
        if not beta > 0 or not 0 <= box_threshold < 1 or not (lam is None or 0 <= lam <= 1):
            raise ValueError(
                "CrossNorm needs a positive beta, box_threshold in [0, 1) and lam in [0, 1] or None, got "
                f"beta={beta}, box_threshold={box_threshold}, lam={lam}"
            )
        self.crop = crop
        self.beta = beta
        self.box_threshold = box_threshold
        self.lam = lam
        self.shuffle_channels = shuffle_channels
        self.generator = new_generator() if generator is None else generator
        self.active = False
        self.forced: bool | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W) of the same shape."""
        return self._draw(maps) if self.training else maps

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the draws decide what is computed
    def _draw(self, maps: Tensor) -> Tensor:
        active = self.active if self.forced is None else self.forced
        height, width = maps.shape[-2:]
        if not active or height * width == 1:
            return maps
        order = torch.randperm(len(maps), generator=self.generator).to(maps.device)
        channels = None
        if self.shuffle_channels:
            channels = torch.randperm(maps.shape[1], generator=self.generator).to(maps.device)
        style_box = self._draw_box(height, width) if self.crop in ("style", "both") else None
        content_box = self._draw_box(height, width) if self.crop in ("content", "both") else None
        return exchange_style(
            maps, order, style_box=style_box, content_box=content_box, lam=self.lam, channels=channels
        )

    def _draw_box(self, height: int, width: int) -> Box:
        """A box of two pixels and more; the whole map where no draw gives one."""
        dice = random.Random(int(torch.randint(2**62, (), generator=self.generator).item()))
        for _ in range(MAX_DRAWS):
            share = dice.betavariate(self.beta, self.beta) ** 0.5
            rows, columns = int(height * share), int(width * share)
            top, left = dice.randrange(height) - rows // 2, dice.randrange(width) - columns // 2
            box = (max(top, 0), max(left, 0), min(top + rows, height), min(left + columns, width))
            area = (box[2] - box[0]) * (box[3] - box[1])
            if area > max(1, self.box_threshold * height * width):
                return box
        return (0, 0, height, width)

    def extra_repr(self) -> str:
        """The settings."""
        return f"crop={self.crop!r}, beta={self.beta}, lam={self.lam}, shuffle_channels={self.shuffle_channels}"


def exchange_style(
    maps: Tensor,
    order: Tensor,
    *,
    style_box: Box | None = None,
    content_box: Box | None = None,
    lam: float | None = None,
    channels: Tensor | None = None,
) -> Tensor:
    """Give image i of the maps (N, C, H, W) the style of image `order[i]`: y = (x - m) / s * s' + m'.

    m is the mean and s = sqrt(unbiased variance + 1e-5), of every image and channel; all of it is differentiated. It is
    computed in float32 at least.

    Args:
        maps: (N, C, H, W).
        order: (N,) int64.
        style_box: where m' and s' come from; None means the whole map.
        content_box: where m and s come from and what is changed.
        lam: share of x in the result; None means 0.
        channels: (C,) int64; channel j takes the style of channel `channels[j]`.
    """
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    style_mean, style_deviation = (each[order] for each in _statistics(_inside(wide, style_box)))
    if channels is not None:
        style_mean, style_deviation = style_mean[:, channels], style_deviation[:, channels]
    content = _inside(wide, content_box)
    mean, deviation = _statistics(content)
    styled = (content - mean) / deviation * style_deviation + style_mean
    if content_box is not None:
        top, left, bottom, right = content_box
        whole = wide.clone()
        whole[..., top:bottom, left:right] = styled
        styled = whole
    if lam is not None:
        styled = lam * wide + (1 - lam) * styled
    return styled.to(maps.dtype)


@contextlib.contextmanager
def crossnorm_active(model: nn.Module, active: bool = True) -> Iterator[None]:
    """Switch all CrossNorm layers of a model on, or off, inside a `with` block; they act in training mode only.

    Raises:
        ValueError: if there is none.
    """
    layers = [module for module in model.modules() if isinstance(module, CrossNorm)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no CrossNorm to switch: convert it with convert_cnsn first")
    before = [layer.forced for layer in layers]
    for layer in layers:
        layer.forced = active
    try:
        yield
    finally:
        for layer, forced in zip(layers, before, strict=True):
            layer.forced = forced


def _inside(maps: Tensor, box: Box | None) -> Tensor:
    if box is None:
        return maps
    top, left, bottom, right = box
    return maps[..., top:bottom, left:right]


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(maps, dim=(2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()
