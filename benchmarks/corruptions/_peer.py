"""The peers: run by the Python of their own environment, they answer one line of JSON with another.

A question names a library, a corruption and how many CPU seconds to spend on it; the answer is images a second. The
first argument is a file of images, uint8 (N, H, W, 3). imagecorruptions takes them one by one, kornia in batches of
floats in [0, 1] that are ready beforehand.
"""

import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, TextIO

import cv2
import imagecorruptions
import kornia.augmentation as kornia
import numba
import numpy as np
import skimage.filters
import torch
from _clock import images_per_second
from imagecorruptions import corruptions

SEVERITY = 3
BATCH = 16
WIDE = (15, 15)  # three deviations of 0.01 times 244 pixels to each side

# The same strength as severity 3 where kornia has the operation; it has no others of the nineteen.
KORNIA = {
    "gaussian_noise": kornia.RandomGaussianNoise(std=0.18, p=1),
    "impulse_noise": kornia.RandomSaltAndPepperNoise(amount=0.09, salt_vs_pepper=0.5, p=1),
    "motion_blur": kornia.RandomMotionBlur(31, angle=45.0, direction=(1.0, 1.0), border_type="replicate", p=1),
    "brightness": kornia.RandomBrightness((1.3, 1.3)),
    "contrast": kornia.RandomContrast((0.2, 0.2)),
    "elastic_transform": kornia.RandomElasticTransform(WIDE, sigma=(2.44, 2.44), padding_mode="reflection", p=1),
    "jpeg_compression": kornia.RandomJPEG((15.0, 15.0)),
    "gaussian_blur": kornia.RandomGaussianBlur(25, (3.0, 3.0), p=1),
    "saturate": kornia.RandomSaturation((2.0, 2.0)),
}


def gaussian(*arguments: Any, multichannel: bool = False, **settings: Any) -> Any:
    """Hand the release's `multichannel` on as what scikit-image calls it since 0.19."""
    return skimage.filters.gaussian(*arguments, channel_axis=-1 if multichannel else None, **settings)


@numba.njit
def shuffle(levels: Any, distance: int, passes: int) -> None:
    """Copy every pixel from a random one near by, in the published order."""
    height, width = levels.shape[:2]
    for _ in range(passes):
        for row in range(height - distance, distance, -1):
            for column in range(width - distance, distance, -1):
                right, down = np.random.randint(-distance, distance), np.random.randint(-distance, distance)  # noqa: NPY002
                for channel in range(levels.shape[2]):
                    levels[row, column, channel] = levels[row + down, column + right, channel]


def glass_blur(picture: Any, severity: int) -> Any:
    """Blur, shuffle, blur, with the loop compiled as in the unreleased main branch; the release's takes a second."""
    sigma, distance, passes = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    levels = np.uint8(gaussian(np.array(picture) / 255.0, sigma=sigma, multichannel=True) * 255)
    shuffle(levels, distance, passes)
    return np.clip(gaussian(levels / 255.0, sigma=sigma, multichannel=True), 0, 1) * 255


def runs_of(images: Any) -> dict[tuple[str, str], Callable[[], int]]:
    """What each library can do: corrupt some images, and say how many."""
    corruptions.gaussian = gaussian
    imagecorruptions.corruption_dict["glass_blur"] = glass_blur
    turn = itertools.cycle(images)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2)[:BATCH].float().contiguous() / 255

    def one(name: str) -> int:
        imagecorruptions.corrupt(next(turn), severity=SEVERITY, corruption_name=name)
        return 1

    def batch(operation: Callable[[Any], Any]) -> int:
        operation(floats)
        return len(floats)

    own = {("imagecorruptions", name): partial(one, name) for name in imagecorruptions.get_corruption_names("all")}
    return own | {("kornia", name): partial(batch, operation) for name, operation in KORNIA.items()}


def main(answers: TextIO) -> None:
    """Say what there is, then answer until the questions end."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    runs = runs_of(np.load(sys.argv[1]))
    packages = ("imagecorruptions", "kornia", "torch", "numpy", "scipy", "scikit-image", "opencv-python", "numba")
    _tell(answers, {"runs": list(runs), "versions": {name: version(name) for name in packages}})
    with torch.no_grad():
        for line in sys.stdin:
            library, name, span = json.loads(line)
            _tell(answers, images_per_second(runs[library, name], span))


def _tell(answers: TextIO, what: object) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)  # whatever the libraries print must not get among the answers
        main(lines)
