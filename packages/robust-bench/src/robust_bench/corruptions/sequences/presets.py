"""The published constants of the sequences.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
arXiv:1903.12261, and the scripts published with it (hendrycks/robustness, `ImageNet-P/create_p`). The constants are in
pixels and made for one image size; nothing is scaled with the image.

| sequence | values, one per frame | constant |
|---|---|---|
| gaussian_noise, speckle_noise | number of the frame | standard deviation at difficulty 1, 2, 3 |
| shot_noise | number of the frame | photons that a white pixel counts, at difficulty 1, 2, 3 |
| motion_blur | angle in degrees | radius, sigma |
| zoom_blur | zoom factor; a frame is the mean over those up to its own | – |
| snow | angle in degrees | mean, deviation, zoom, threshold, radius, sigma, share of the image |
| brightness | what is added to the value V | – |
| translate | pixels to the right | – |
| rotate, shear, tilt | angle in degrees | – |
| scale | factor | – |
| gaussian_blur | sigma | radius in multiples of sigma |
| spatter | number of the frame | mean, deviation, sigma, threshold, strength, and the kernel that lets the liquid run |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIFFICULTIES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a sequence is made with.

    Args:
        values: one per frame.
        constant: what is the same in all frames.
    """

    values: tuple[float, ...]
    constant: Any = None


@dataclass(frozen=True, kw_only=True)
class SequencePreset:
    """One table of constants.

    Args:
        side: of the shorter side of the images that the table was made for, in pixels.
        cut: side of the centre that is cut out of every frame; None leaves frames as large as the images.
        smallest: fewest pixels a side that images must have.
        reported: the ten that scores are over, in the published order.
        validation: four more, for choosing hyper-parameters.
        published: how the published set's pixels differ from frames that are made here.
        steps: by the name of the sequence.
    """

    side: int
    cut: int | None
    smallest: int
    reported: tuple[str, ...]
    validation: tuple[str, ...]
    published: str
    steps: Mapping[str, Steps]


def _numbered(constant: Any) -> Steps:
    return Steps(values=tuple(range(31)), constant=constant)


def _around(middle: int, step: float, count: int = 31, constant: Any = None) -> Steps:
    """Values in equal steps that are 0 at the frame `middle`."""
    return Steps(values=tuple(step * (frame - middle) for frame in range(count)), constant=constant)


def _from(first: float, step: float, constant: Any = None) -> Steps:
    """Values in equal steps, both in hundredths."""
    return Steps(values=tuple((first + step * frame) / 100.0 for frame in range(31)), constant=constant)


_WIND = tuple(-150.0 + 4.0 * frame for frame in range(31))  # degrees

SEQUENCES = (
    "gaussian_noise",
    "shot_noise",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
)
"""The ten of ImageNet-P that the mean flip rate is over, in the published order."""

VALIDATION_SEQUENCES = ("speckle_noise", "gaussian_blur", "spatter", "shear")
"""Four more of ImageNet-P, for choosing hyper-parameters: they are not part of the mean."""

PRESETS: Mapping[str, SequencePreset] = {
    "imagenet": SequencePreset(
        side=256,
        cut=224,
        smallest=224,
        reported=SEQUENCES,
        validation=VALIDATION_SEQUENCES,
        published="H.264 videos (crf 20, noises tuned for grain), so that equal pixels are impossible",
        steps={
            "gaussian_noise": _numbered((0.03, 0.05, 0.08)),
            "shot_noise": _numbered((300, 120, 60)),
            "motion_blur": _around(30, 4.0, constant=(10, 3)),
            "zoom_blur": _from(100.0, 0.4),
            "snow": Steps(values=_WIND, constant=(0.05, 0.3, 3, 0.5, 14, 4, 0.85)),
            "brightness": _around(15, 0.02),
            "translate": _around(20, 1, 41),
            "rotate": _around(15, 1.0),
            "tilt": _around(15, 1.0),
            "scale": _from(40.0, 2.5),
            "speckle_noise": _numbered((0.05, 0.10, 0.15)),
            "gaussian_blur": _from(25.0, 3.5, 6.0),
            "spatter": _numbered((0.65, 0.27, 3.7, 0.69, 0.6, (0.05, 0.1, 0.15, 0.7))),
            "shear": _around(15, 1.0),
        },
    ),
    "cifar": SequencePreset(
        side=32,
        cut=None,
        smallest=32,
        reported=tuple("spatter" if name == "snow" else name for name in SEQUENCES),
        validation=("speckle_noise", "gaussian_blur", "snow", "shear"),
        published="uint8 arrays with random numbers of their own, so that noises, snow and spatter are others",
        steps={
            "gaussian_noise": _numbered((0.02, 0.04, 0.06)),
            "shot_noise": _numbered((700, 400, 200)),
            "motion_blur": _around(20, 9.0, 21, constant=(6, 1.8)),
            "zoom_blur": _from(100.0, 0.4),
            "snow": Steps(values=_WIND, constant=(0.05, 0.3, 2, 0.5, 10, 2, 0.85)),
            "brightness": _around(15, 0.015),
            "translate": _around(7, 1, 16),
            "rotate": _around(15, 1.0),
            "tilt": _around(15, 0.75),
            "scale": _from(70.0, 2.0),
            "speckle_noise": _numbered((0.05, 0.07, 0.1)),
            "gaussian_blur": _from(30.0, 1.5, 7.0),
            "spatter": _numbered((0.6, 0.265, 1.75, 0.7, 0.6, (0.2, 0.8))),
            "shear": _around(15, 1.0),
        },
    ),
}

REPORTED: Mapping[str, tuple[str, ...]] = {name: preset.reported for name, preset in PRESETS.items()}
"""The ten that scores are over, by preset: CIFAR-10-P has spatter where ImageNet-P has snow."""
