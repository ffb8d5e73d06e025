"""What is aimed at, and what the specification of the corruptions says of others.

Images a second at 224 pixels, severity 3, on one thread of another machine: only their ratios are used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SUITE_GOAL = 4.0  # times as fast as imagecorruptions over all fifteen
ORIGINAL_SUITE_GOAL = 29.0  # and as the original script


@dataclass(frozen=True)
class Published:
    """The main branch of imagecorruptions, the original script, and how many times the former's speed is aimed at."""

    head: float
    original: float
    goal: float


PUBLISHED: Mapping[str, Published] = {
    "gaussian_noise": Published(219, 213, 6.8),
    "shot_noise": Published(85, 87, 9.7),
    "impulse_noise": Published(310, 242, 5),
    "defocus_blur": Published(262, 213, 2.6),
    "glass_blur": Published(118, 1.1, 1),
    "motion_blur": Published(218, 15.4, 4.5),
    "zoom_blur": Published(16.7, 16.9, 10.9),
    "snow": Published(114, 26, 4),
    "frost": Published(208, 122, 9.6),
    "fog": Published(283, 235, 3.6),
    "brightness": Published(55, 49, 41),
    "contrast": Published(625, 543, 4),
    "elastic_transform": Published(88, 83, 4.5),
    "pixelate": Published(3715, 2134, 1),
    "jpeg_compression": Published(2796, 2515, 1),
    "speckle_noise": Published(357, 317, 4),
    "gaussian_blur": Published(438, 387, 1.3),
    "spatter": Published(229, 204, 1),
    "saturate": Published(56, 54, 18.5),
}

ORIGINAL_AT_32: Mapping[str, float] = {"glass_blur": 158, "frost": 201, "zoom_blur": 403, "snow": 594}
