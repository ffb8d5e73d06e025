"""The operations of AugMix and APR-S, by name: what a strength L means for each of them."""

from torch import Tensor

from robust_augs.enhance import brightness, color, contrast, sharpness
from robust_augs.geometry import rotate, shear_x, shear_y, translate_x, translate_y
from robust_augs.tone import autocontrast, equalize, posterize, solarize

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
# ImageNet-C and -P have corruptions like these, so a score on them means less after training with these.
OVERLAPPING = ("color", "contrast", "brightness", "sharpness")


def operate(name: str, levels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Change images by one of the operations, each with its own strength and direction.

    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020,
    arXiv:1912.02781, with the ranges of the published code.

    Args:
        name: one of `OPERATIONS` or `OVERLAPPING`.
        levels: (N, C, H, W) on the scale 0..255, as uint8, which is rounded as Pillow does, or floats, which are not.
        strength: (N,), in (0, 10].
        sign: (N,), 1 or -1, the direction of what has one.
    """
    strength = strength.double()  # so that int(3 L) and the like are those of a Python float
    height, width = levels.shape[2:]
    match name:
        case "autocontrast":
            return autocontrast(levels)
        case "equalize":
            return equalize(levels)
        case "posterize":
            return posterize(levels, 4 - (strength * 4 / 10).long())
        case "rotate":
            return rotate(levels, sign * (strength * 30 / 10).long())
        case "solarize":
            return solarize(levels, 256 - (strength * 256 / 10).long())
        case "shear_x":
            return shear_x(levels, sign * strength * 0.3 / 10)
        case "shear_y":
            return shear_y(levels, sign * strength * 0.3 / 10)
        case "translate_x":
            return translate_x(levels, sign * (strength * width / 30).long())
        case "translate_y":
            return translate_y(levels, sign * (strength * height / 30).long())
        case "color":
            return color(levels, strength * 1.8 / 10 + 0.1)
        case "contrast":
            return contrast(levels, strength * 1.8 / 10 + 0.1)
        case "brightness":
            return brightness(levels, strength * 1.8 / 10 + 0.1)
        case "sharpness":
            return sharpness(levels, strength * 1.8 / 10 + 0.1)
    raise ValueError(f"no operation is called {name!r}: choose one of {', '.join(OPERATIONS + OVERLAPPING)}")
