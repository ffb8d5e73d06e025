"""One image under every corruption and severity, as a picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robust_bench.corruptions.corrupt import corrupt
from robust_bench.corruptions.presets import SEVERITIES, preset_for
from robust_bench.corruptions.table import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, find

_PANELS = (("noise", "blur"), ("weather", "digital"))  # side by side
_INK, _FAINT, _PAPER = (25, 25, 30), (125, 125, 135), (255, 255, 255)


def contact_sheet(
    image: Tensor,
    preset: str | None = None,
    variant: str = "imagenet_c",
    seed: int = 0,
    *,
    tile: int = 112,
    frost: str | Path = "procedural",
) -> Image.Image:
    """Draw an image under every corruption that takes its size: a row each, clean and at severities 1 to 5.

    The names of the extra corruptions are grey. An image that is larger than a tile is shrunk, which makes noise look
    weaker than it is; a smaller one is enlarged without smoothing.

    Args:
        image: uint8 (3, H, W) or (1, H, W).
        preset: whose constants; None means those that were made for the nearest size.
        variant: see `corrupt`.
        seed: of the random draws.
        tile: longer side of each picture on the sheet, in pixels; the letters grow with it.
        frost: see `corrupt`.

    Returns:
        A picture of Pillow, to look at or to save.

    Raises:
        ValueError: if the shape, the type or a name is not as said.
        TypeError: if `image` is not a tensor.

    Examples:
        >>> sheet = contact_sheet(torch.full((3, 32, 32), 128, dtype=torch.uint8), tile=32)
        >>> sheet.mode
        'RGB'
    """
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a torch tensor (3, H, W), got {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"image must be one image (3, H, W) or (1, H, W), got the shape {tuple(image.shape)}")
    if image.dtype != torch.uint8:
        raise ValueError(f"image must be uint8, got {image.dtype}: convert with (image * 255).round().to(torch.uint8)")
    if tile < 16:
        raise ValueError(f"tile must be at least 16 pixels for the letters to be legible, got {tile}")
    height, width = image.shape[1:]
    constants = preset_for(height, width) if preset is None else preset
    batch = image.expand(len(SEVERITIES), -1, -1, -1)
    severities, ids = torch.tensor(SEVERITIES), torch.zeros(len(SEVERITIES), dtype=torch.int64)
    rows = {
        name: [image, *corrupt(batch, name, severities, constants, variant, seed, ids, frost=frost)]
        for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
        if find(name).smallest <= min(height, width)
    }
    scale = tile / max(height, width)
    sheet = _Sheet(rows, max(1, round(width * scale)), max(1, round(height * scale)), tile // 5)
    return sheet.beside([sheet.panel(groups) for groups in _PANELS])


class _Sheet:
    """The rows of a sheet, how large its tiles and letters are, and the pieces that it is put together from."""

    def __init__(self, rows: Mapping[str, Sequence[Tensor]], width: int, height: int, letters: int) -> None:
        self.rows = rows
        self.size = (width, height)
        self.gap = max(1, letters // 5)
        self.line = 2 * letters
        self.font = ImageFont.load_default(letters)
        longest = max(self.font.getlength(word) for name in rows for word in name.split("_"))
        self.margin = math.ceil(longest) + 3 * self.gap

    def panel(self, groups: Sequence[str]) -> Image.Image:
        """Stack the rows of some groups under their titles; a piece of no height where there are none."""
        return _stacked([strip for group in groups for strip in self._group(group)], self._wide())

    def beside(self, panels: Sequence[Image.Image]) -> Image.Image:
        """Set panels side by side, with a margin around."""
        panels = [panel for panel in panels if panel.height]
        edge, between = 2 * self.gap, 6 * self.gap
        wide = sum(panel.width for panel in panels) + between * (len(panels) - 1)
        out = Image.new("RGB", (wide + 2 * edge, max(panel.height for panel in panels) + 2 * edge), _PAPER)
        left = edge
        for panel in panels:
            out.paste(panel, (left, edge))
            left += panel.width + between
        return out

    def _wide(self) -> int:
        return self.margin + (len(SEVERITIES) + 1) * (self.size[0] + self.gap) - self.gap

    def _columns(self) -> Iterator[int]:
        """Left edges of the tiles."""
        return iter(range(self.margin, self._wide(), self.size[0] + self.gap))

    def _group(self, group: str) -> Iterator[Image.Image]:
        """A line with the group's name and the severities, then its rows."""
        names = [name for name in self.rows if GROUPS[name] == group]
        if names:
            yield self._heading(group)
            yield from (self._row(name) for name in names)

    def _heading(self, group: str) -> Image.Image:
        strip = Image.new("RGB", (self._wide(), self.line), _PAPER)
        draw = ImageDraw.Draw(strip)
        middle = self.line // 2
        for shift in (0, 1):  # bold
            draw.text((shift, middle), group.capitalize(), _INK, self.font, anchor="lm")
        for left, word in zip(self._columns(), ("clean", *map(str, SEVERITIES)), strict=True):
            draw.text((left + self.size[0] // 2, middle), word, _FAINT, self.font, anchor="mm")
        return strip

    def _row(self, name: str) -> Image.Image:
        height = max(self.size[1], self.line) + self.gap
        strip = Image.new("RGB", (self._wide(), height), _PAPER)
        ink = _FAINT if name in EXTRA_CORRUPTIONS else _INK
        words = name.replace("_", "\n")
        ImageDraw.Draw(strip).multiline_text(
            (0, self.size[1] // 2), words, ink, self.font, anchor="lm", spacing=self.gap
        )
        for left, picture in zip(self._columns(), self.rows[name], strict=True):
            strip.paste(self._tile(picture), (left, 0))
        return strip

    def _tile(self, picture: Tensor) -> Image.Image:
        pixels = picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
        tile = Image.fromarray(pixels)
        smaller = self.size[0] < tile.width
        return tile.resize(self.size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _stacked(strips: Sequence[Image.Image], width: int) -> Image.Image:
    out = Image.new("RGB", (width, sum(strip.height for strip in strips)), _PAPER)
    top = 0
    for strip in strips:
        out.paste(strip, (0, top))
        top += strip.height
    return out
