"""Noise added to the pixels."""

import torch
from torch import Tensor

from robust_bench.corruptions.corruption import Corruption, Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import normal_field, uniform_field
from robust_bench.corruptions.poisson import shot_noise, shot_noise_levels


def sample_normal(key: Key, shape: Shape, _constant: float) -> dict[str, Tensor]:
    """Draw one standard normal number for every value of the images."""
    return {"normal": normal_field(key("normal"), shape)}


def sample_uniform(key: Key, shape: Shape, _constant: float) -> dict[str, Tensor]:
    """Draw one number in (0, 1) for every value of the images."""
    return {"uniform": uniform_field(key("uniform"), shape)}


def gaussian_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Add normal noise with a standard deviation in [0, 1] units, drawn for every value on its own."""
    noise = draws.field("normal", tuple(images.shape)).to(images)
    return images.add(noise, alpha=deviation)


def speckle_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Add normal noise that is proportional to the value itself: x + x deviation z."""
    noise = draws.field("normal", tuple(images.shape)).to(images)
    return images.addcmul(images, noise, value=deviation)


def impulse_noise(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Make a share of the values, each on its own, black or white with equal probability.

    One uniform number decides both: below share / 2 it is black, from there to the share white.
    """
    uniform = draws.field("uniform", tuple(images.shape))
    black, hit = uniform < share / 2, uniform < share
    return torch.maximum(images, hit.to(images.dtype)).mul_(black.logical_not_())


def impulse_noise_levels(levels: Tensor, share: float, draws: Draws) -> Tensor:
    """Do the same to uint8 images, with bits: far faster on a CPU than choosing value by value."""
    uniform = draws.field("uniform", tuple(levels.shape)).to(torch.float32)
    black, hit = _below(uniform, share / 2), _below(uniform, share)
    return hit.bitwise_or_(levels).bitwise_and_(black.bitwise_not_())


def _below(numbers: Tensor, bound: float) -> Tensor:
    """Give 255 where float32 numbers are below the bound, else 0: their difference's sign bit, spread over a byte."""
    return (numbers - bound).view(torch.int32).bitwise_right_shift_(31).to(torch.uint8)


NOISE = (
    Corruption(name="gaussian_noise", group="noise", apply=gaussian_noise, sample=sample_normal),
    Corruption(
        name="shot_noise", group="noise", apply=shot_noise, apply_levels=shot_noise_levels, sample=sample_uniform
    ),
    Corruption(
        name="impulse_noise",
        group="noise",
        apply=impulse_noise,
        apply_levels=impulse_noise_levels,
        sample=sample_uniform,
    ),
    Corruption(name="speckle_noise", group="noise", apply=speckle_noise, sample=sample_normal, extra=True),
)
