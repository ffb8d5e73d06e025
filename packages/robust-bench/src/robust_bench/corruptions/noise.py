"""Noise added to the pixels."""

from torch import Tensor

from robust_bench.corruptions.corruption import Corruption, Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import normal_field


def sample_normal(key: Key, shape: Shape, _constant: float) -> dict[str, Tensor]:
    """Draw one standard normal number for every value of the images."""
    return {"normal": normal_field(key("normal"), shape)}


def gaussian_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Add normal noise with a standard deviation in [0, 1] units, drawn for every value on its own."""
    noise = draws.field("normal", tuple(images.shape)).to(images)
    return images.add(noise, alpha=deviation)


NOISE = (Corruption(name="gaussian_noise", group="noise", apply=gaussian_noise, sample=sample_normal),)
