"""The seventeen edits of the weights of a super-resolution network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from robust_augs._random import dirichlet, uniform
from robust_augs.deepaugment.kernels import (
    keep_largest,
    random_mask,
    random_scale,
    random_shift,
    random_signs,
    rotate,
    uniform_like,
)
from robust_augs.deepaugment.layers import Block, draw_below, draw_some, weight_and_bias

Edit = Callable[[list[Block], torch.Generator | None], None]

# Blocks that the published code edits, of its sixteen; a shorter network has fewer of them.
EVERY_THIRD = (0, 3, 6, 9)
NEXT_TO_THEM = (1, 4, 7)
EVERY_FOURTH = (1, 5, 9)
NEARLY_ALL = tuple(range(15))

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
FULL_LAPLACIAN = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))


@torch.no_grad()
def edit_weights(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Apply three of the seventeen edits, drawn with replacement, to the convolutions of `blocks`, in place."""
    edits = list(WEIGHT_EDITS.values())
    for _ in range(3):
        edits[draw_below(len(edits), generator)](blocks, generator)


def _pick(blocks: list[Block], places: tuple[int, ...], generator: torch.Generator | None) -> Block:
    here = [place for place in places if place < len(blocks)]
    return blocks[here[draw_below(len(here), generator)]]


def _five_first(blocks: list[Block], generator: torch.Generator | None) -> list[nn.Conv2d]:
    """The first convolutions of five blocks, drawn with replacement."""
    return [_pick(blocks, NEARLY_ALL, generator)[0] for _ in range(5)]


def _five_of_both(blocks: list[Block], generator: torch.Generator | None) -> list[nn.Conv2d]:
    """The first or the last convolution of five blocks, drawn with replacement."""
    return [_pick(blocks, NEARLY_ALL, generator)[draw_below(2, generator)] for _ in range(5)]


def reverse(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Reverse the order of the filters of a block's two convolutions."""
    for layer in _pick(blocks, EVERY_THIRD, generator):
        for parameter in weight_and_bias(layer):
            parameter.copy_(parameter.flip(0))


def negate(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Negate a convolution and its bias."""
    for parameter in weight_and_bias(_pick(blocks, NEXT_TO_THEM, generator)[0]):
        parameter.neg_()


def zero(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Set a convolution and its bias to zero."""
    for parameter in weight_and_bias(_pick(blocks, EVERY_THIRD, generator)[0]):
        parameter.zero_()


def minus_gelu(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Replace the weights w of a block's two convolutions by -GELU(w)."""
    for layer in _pick(blocks, EVERY_THIRD, generator):
        layer.weight.copy_(-F.gelu(layer.weight))


def laplacian(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Multiply the kernels of a convolution, entry by entry, by a Laplacian of four neighbours."""
    layer = _pick(blocks, EVERY_THIRD, generator)[0]
    layer.weight.mul_(layer.weight.new_tensor(LAPLACIAN))


def full_laplacian(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Multiply the kernels of a convolution, entry by entry, by a Laplacian of eight neighbours."""
    layer = _pick(blocks, EVERY_THIRD, generator)[0]
    layer.weight.mul_(layer.weight.new_tensor(FULL_LAPLACIAN))


def scale(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Multiply the weights of a convolution by 1 + 2 u U(-1, 1)."""
    layer = _pick(blocks, EVERY_THIRD, generator)[1]
    layer.weight.copy_(random_scale(layer.weight, generator, low=-1, high=1))


def mirror(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Mirror the kernels of a block's first convolution left to right and negate the weights of its last."""
    first, last = _pick(blocks, EVERY_THIRD, generator)
    first.weight.copy_(first.weight.flip(3))
    last.weight.neg_()


def shift(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Move the kernels of a convolution by up to a pixel, by a delta of random sign for each of its channels."""
    layer = _pick(blocks, EVERY_FOURTH, generator)[0]
    layer.weight.copy_(random_shift(layer.weight, generator))


def convolve_noise(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Convolve the kernels of a convolution over all its channels with noise (2 u U - 1) / 6."""
    weight = _pick(blocks, EVERY_THIRD, generator)[0].weight
    spread = float(uniform((1,), generator, "cpu"))
    square = weight.new_empty(weight.shape[1], weight.shape[1], 3, 3)
    noise = (2 * spread * uniform_like(square, generator) - 1) / 6
    weight.copy_(F.conv2d(weight, noise, padding=1))


def convolve_dirichlet(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Convolve the kernels of a convolution over all its channels with kernels whose entries are Dirichlet(0.1)."""
    weight = _pick(blocks, EVERY_FOURTH, generator)[1].weight
    channels = weight.shape[1]
    entries = dirichlet((channels, channels, 9), 0.1, generator, weight.device)
    weight.copy_(F.conv2d(weight, entries.view(channels, channels, 3, 3).to(weight.dtype), padding=1))


def add_noise(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Add U(-0.5, 0.5) to the weights of a convolution."""
    weight = _pick(blocks, NEARLY_ALL, generator)[1].weight
    weight.add_(uniform_like(weight, generator) - 0.5)


def rotate_kernels(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Turn the kernels, or the plane of filters and channels, by 90, 180 or 270 degrees, in five convolutions."""
    for layer in _five_of_both(blocks, generator):
        quarters, channels = 1 + draw_below(3, generator), draw_below(2, generator) == 1
        layer.weight.copy_(rotate(layer.weight, quarters, channels=channels))


def change_signs(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Give the weights of five convolutions random signs."""
    for layer in _five_first(blocks, generator):
        layer.weight.mul_(random_signs(layer.weight, generator))


def mask(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Set a random half of the weights of five convolutions to zero."""
    for layer in _five_first(blocks, generator):
        layer.weight.mul_(random_mask(layer.weight, generator))


def negate_half(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Negate half of the filters of five convolutions."""
    for layer in _five_first(blocks, generator):
        chosen = draw_some(len(layer.weight) // 2, len(layer.weight), generator).to(layer.weight.device)
        layer.weight[chosen] = -layer.weight[chosen]


def keep_the_largest(blocks: list[Block], generator: torch.Generator | None) -> None:
    """Keep only the largest entry of each kernel, in five convolutions."""
    for layer in _five_of_both(blocks, generator):
        layer.weight.copy_(keep_largest(layer.weight))


WEIGHT_EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        reverse,
        negate,
        zero,
        minus_gelu,
        laplacian,
        full_laplacian,
        scale,
        mirror,
        shift,
        convolve_noise,
        convolve_dirichlet,
        add_noise,
        rotate_kernels,
        change_signs,
        mask,
        negate_half,
        keep_the_largest,
    )
}
