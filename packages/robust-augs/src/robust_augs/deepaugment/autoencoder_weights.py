"""The eight edits of the weights of a compressive autoencoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from robust_augs.deepaugment.kernels import random_mask, random_scale, random_signs, rotate
from robust_augs.deepaugment.layers import Convolution, draw_below, draw_some, filters, weight_and_bias

Edit = Callable[[list[Convolution], torch.Generator | None], None]

# Which layers the published code edits, counted from the one that makes the code on into the decoder.
MIDDLE = slice(0, 6)
LATER = slice(2, 6)
LATEST = slice(3, 8)


@torch.no_grad()
def edit_weights(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Apply one of the eight edits to `layers`, in place: the one that makes the code, then those of the decoder."""
    edits = list(WEIGHT_EDITS.values())
    edits[draw_below(len(edits), generator)](layers, generator)


def _pick(layers: list[Convolution], generator: torch.Generator | None) -> Convolution:
    return layers[draw_below(len(layers), generator)]


def _pick_two(layers: list[Convolution], generator: torch.Generator | None) -> list[Convolution]:
    return [layers[place] for place in draw_some(2, len(layers), generator).tolist()]


def _some_filters(parameter: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return draw_some(count, len(parameter), generator).to(parameter.device)


def reverse(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Reverse the order of the filters of two convolutions."""
    for layer in _pick_two(layers[LATEST], generator):
        for parameter in weight_and_bias(layer):
            parameter.copy_(parameter.flip(0))


def negate(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Negate twelve filters and their biases."""
    layer = _pick(layers[MIDDLE], generator)
    chosen = _some_filters(filters(layer), 12, generator)
    for parameter in weight_and_bias(layer):
        parameter[chosen] = -parameter[chosen]


def zero(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Set twenty-five filters and their biases to zero."""
    layer = _pick(layers[MIDDLE], generator)
    chosen = _some_filters(filters(layer), 25, generator)
    for parameter in weight_and_bias(layer):
        parameter[chosen] = 0


def minus_gelu(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Replace the weights w of twenty-five filters, and their biases, by -GELU(w)."""
    layer = _pick(layers[LATER], generator)
    chosen = _some_filters(filters(layer), 25, generator)
    for parameter in weight_and_bias(layer):
        parameter[chosen] = -F.gelu(parameter[chosen])


def scale(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Multiply the weights of two convolutions by 1 + 2 u U(-1, 3)."""
    for layer in _pick_two(layers[MIDDLE], generator):
        layer.weight.copy_(random_scale(layer.weight, generator, low=-1, high=3))


def mask(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Set a random half of the weights of a convolution to zero, or negate them, with equal probability."""
    weight = _pick(layers[MIDDLE], generator).weight
    factor = (random_mask, random_signs)[draw_below(2, generator)]
    weight.mul_(factor(weight, generator))


def rotate_kernels(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Turn the kernels of a convolution by 90, 180 or 270 degrees."""
    weight = _pick(layers[MIDDLE], generator).weight
    weight.copy_(rotate(weight, 1 + draw_below(3, generator)))


def negate_a_fifth(layers: list[Convolution], generator: torch.Generator | None) -> None:
    """Negate a fifth of the filters of a convolution, but not their biases."""
    own = filters(_pick(layers[MIDDLE], generator))
    chosen = _some_filters(own, len(own) // 5, generator)
    own[chosen] = -own[chosen]


WEIGHT_EDITS: dict[str, Edit] = {
    edit.__name__: edit for edit in (reverse, negate, zero, minus_gelu, scale, mask, rotate_kernels, negate_a_fifth)
}
