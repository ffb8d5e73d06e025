"""The published constants of the corruptions, severities 1 to 5.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
arXiv:1903.12261, and the scripts published with it. The constants are in pixels and made for one image size; nothing
is scaled with the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SEVERITIES = (1, 2, 3, 4, 5)

Constants = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One table of constants.

    Args:
        size: side of the images that the table was made for.
        stored_as: how the published set keeps its images.
        constants: corruption -> one constant per severity.
    """

    size: int
    stored_as: str
    constants: Mapping[str, Constants]


PRESETS: Mapping[str, Preset] = {
    "imagenet": Preset(
        size=224,
        stored_as="JPEG quality 85",
        constants={
            "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        },
    ),
    "cifar": Preset(
        size=32,
        stored_as="uint8 arrays",
        constants={
            "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
            "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
            "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
            "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        },
    ),
    "tiny_imagenet": Preset(
        size=64,
        stored_as="JPEG quality 85",
        constants={
            "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
        },
    ),
}


def preset_for(height: int, width: int) -> str:
    """Name the preset whose size is nearest to an image's, by ratio.

    Examples:
        >>> preset_for(8, 8), preset_for(64, 64), preset_for(224, 224)
        ('cifar', 'tiny_imagenet', 'imagenet')
    """
    side = (height * width) ** 0.5
    return min(PRESETS, key=lambda name: max(PRESETS[name].size / side, side / PRESETS[name].size))


def fits(preset: str, height: int, width: int) -> bool:
    """Tell whether the constants of `preset` make sense at this image size: within a factor of 1.5.

    The `cifar` constants are the smallest that were published, so they also serve everything smaller than 32 pixels.
    """
    side = (height * width) ** 0.5
    size = PRESETS[preset].size
    return size / 1.5 <= side <= size * 1.5 or (preset == "cifar" and side < size)
