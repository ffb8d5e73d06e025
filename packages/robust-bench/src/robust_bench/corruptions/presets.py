"""The published constants of the corruptions, severities 1 to 5.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
arXiv:1903.12261, and the scripts published with it. The constants are in pixels and made for one image size; nothing
is scaled with the image.

| corruption | constant of one severity |
|---|---|
| gaussian_noise, speckle_noise | standard deviation of the noise |
| shot_noise | photons that a white pixel counts |
| impulse_noise | share of the values that are hit |
| gaussian_blur | sigma |
| defocus_blur | radius of the disk, sigma of its soft edge |
| glass_blur | sigma, largest distance of a copied pixel, passes |
| motion_blur | radius, sigma |
| zoom_blur | last zoom factor, step, number of factors (the first is 1) |
| snow | mean, deviation, zoom, threshold, radius, sigma, share of the image |
| frost | factor of the image, factor of the texture, scale of the texture |
| fog | strength, decay |
| brightness | what is added to the value V |
| contrast | factor |
| elastic_transform | alpha, sigma, largest jitter of the corners, all in pixels; for "imagecorruptions" alpha alone |
| pixelate | scale |
| jpeg_compression | quality |
| spatter | mean, deviation, sigma, threshold, strength (water) or sigma (mud), 0 for water and 1 for mud |
| saturate | factor and offset of the saturation |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEVERITIES = (1, 2, 3, 4, 5)

Constants = tuple[Any, ...]
"""One number, or tuple of numbers, per severity."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One table of constants.

    Args:
        size: side of the images that the table was made for.
        stored_as: how the published set keeps its images.
        constants: corruption -> one number or tuple of numbers per severity; see the table above.
    """

    size: int
    stored_as: str
    constants: Mapping[str, Constants]


def _sides(side: int, *factors: tuple[float, float, float]) -> Constants:
    """Multiply (alpha, sigma, jitter) by the side that the original script means, for every severity."""
    return tuple(tuple(side * factor for factor in severity) for severity in factors)


_SMALL_ZOOM = ((1.06, 0.01, 7), (1.11, 0.01, 12), (1.15, 0.01, 16), (1.20, 0.01, 21), (1.25, 0.01, 26))

PRESETS: Mapping[str, Preset] = {
    "imagenet": Preset(
        size=224,
        stored_as="JPEG quality 85",
        constants={
            "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
            "shot_noise": (60, 25, 12, 5, 3),
            "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
            "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            "zoom_blur": ((1.11, 0.01, 12), (1.15, 0.01, 16), (1.20, 0.02, 11), (1.24, 0.02, 13), (1.30, 0.03, 11)),
            "snow": (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
            "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            # 244 is what the original script says (a slip for 224); the published set was made with it.
            "elastic_transform": _sides(
                244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
            ),
            "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
            "jpeg_compression": (25, 18, 15, 10, 7),
            "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
            "gaussian_blur": (1, 2, 3, 4, 6),
            "spatter": (
                (0.65, 0.3, 4, 0.69, 0.6, 0),
                (0.65, 0.3, 3, 0.68, 0.6, 0),
                (0.65, 0.3, 2, 0.68, 0.5, 0),
                (0.65, 0.3, 1, 0.65, 1.5, 1),
                (0.67, 0.4, 1, 0.65, 1.5, 1),
            ),
            "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        },
    ),
    "cifar": Preset(
        size=32,
        stored_as="uint8 arrays",
        constants={
            "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
            "shot_noise": (500, 250, 100, 75, 50),
            "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
            "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            "zoom_blur": _SMALL_ZOOM,
            "snow": (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            "frost": ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
            "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
            "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
            "elastic_transform": _sides(
                32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
            ),
            "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
            "jpeg_compression": (80, 65, 58, 50, 40),
            "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
            "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
            "spatter": (
                (0.62, 0.1, 0.7, 0.7, 0.5, 0),
                (0.65, 0.1, 0.8, 0.7, 0.5, 0),
                (0.65, 0.3, 1, 0.69, 0.5, 0),
                (0.65, 0.1, 0.7, 0.69, 0.6, 1),
                (0.65, 0.1, 0.5, 0.68, 0.6, 1),
            ),
            "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        },
    ),
    "tiny_imagenet": Preset(
        size=64,
        stored_as="JPEG quality 85",
        constants={
            "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
            "shot_noise": (250, 100, 50, 30, 15),
            "impulse_noise": (0.01, 0.02, 0.05, 0.08, 0.14),
            "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
            "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
            "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
            "zoom_blur": _SMALL_ZOOM,
            "snow": (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
            ),
            "frost": ((1, 0.3, 0.3), (0.9, 0.4, 0.3), (0.8, 0.45, 0.3), (0.75, 0.5, 0.3), (0.7, 0.55, 0.3)),
            "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "elastic_transform": _sides(
                64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)
            ),
            "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
            "jpeg_compression": (65, 58, 50, 40, 25),
            "speckle_noise": (0.15, 0.2, 0.25, 0.3, 0.35),
            "gaussian_blur": (0.5, 0.75, 1, 1.25, 1.5),
            "spatter": (
                (0.62, 0.1, 0.7, 0.7, 0.6, 0),
                (0.65, 0.1, 0.8, 0.7, 0.6, 0),
                (0.65, 0.3, 1, 0.69, 0.6, 0),
                (0.65, 0.1, 0.7, 0.68, 0.6, 1),
                (0.65, 0.1, 0.5, 0.67, 0.6, 1),
            ),
            "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        },
    ),
}

# Where the package `imagecorruptions` has other constants than the table "imagenet".
_IMAGECORRUPTIONS: Mapping[str, Constants] = {
    "elastic_transform": tuple(250 * factor for factor in (0.05, 0.065, 0.085, 0.1, 0.12)),
}


def constant_of(name: str, severity: int, preset: str, variant: str = "imagenet_c") -> Any:
    """Look up a corruption's number, or tuple of numbers, at a severity.

    Examples:
        >>> constant_of("motion_blur", 3, "imagenet")
        (15, 8)
    """
    table = PRESETS[preset].constants
    if variant == "imagecorruptions":
        table = {**table, **_IMAGECORRUPTIONS}
    return table[name][severity - 1]


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
