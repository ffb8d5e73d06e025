"""Sequences of an image that is moved, turned, sheared, tilted or scaled, over black.

The whole image is moved, and the window cut out of it afterwards; only the window is worked out.

All but tilt are `torchvision.transforms.functional.affine` of a Pillow image in the published scripts. Pillow gives the
centre of the first pixel the coordinate 1/2 and truncates to 8 bits. torchvision, when the sets were made, turned and
scaled about (W / 2 + 1/2, H / 2 + 1/2), half a pixel beside the image's centre, and its shear also shortened the
columns, by its cosine; so do these. (It was changed later: pytorch/vision, pull requests 2468 and 1529.)

Tilt is OpenCV's `warpPerspective`, for which the centre of the first pixel is 0, and which rounds to 8 bits. OpenCV 4
rounds coordinates to 1/32 pixel; these are exact, as in OpenCV 5.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from robust_bench.corruptions.levels import unit
from robust_bench.corruptions.sequences.perturbation import Draw, Perturbation, Window
from robust_bench.corruptions.sequences.presets import Steps
from robust_bench.corruptions.sequences.warp import HALF, Reads, reads_inside, reads_over_the_edge, warp

_KEPT = 48  # small frames, as many as the longest sequence has: batches of a size read at the same places
_SMALL = 64 * 64  # pixels of a frame; 17 bytes are kept of each

Size = tuple[int, int]
"""Height and width."""

Matrix = tuple[tuple[float, float], tuple[float, float]]
"""From a place in the image to a place in the frame, both (right, down) and relative to the centre."""

How = TypeVar("How")


def _identity(_value: float) -> Matrix:
    return (1.0, 0.0), (0.0, 1.0)


def _turned(angle: float) -> Matrix:
    """Turn clockwise."""
    turn = math.radians(angle)
    return (math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))


def _sheared(angle: float) -> Matrix:
    """Turn the columns alone clockwise, keeping their length along themselves, so that the image becomes lower."""
    turn = math.radians(angle)
    return (1.0, -math.sin(turn)), (0.0, math.cos(turn))


def _scaled(factor: float) -> Matrix:
    return (factor, 0.0), (0.0, factor)


def _affine(matrix: Callable[[float], Matrix], *, moves: bool = False) -> Callable[..., Iterator[Tensor]]:
    """Make frames by a matrix about the centre, or by a move to the right."""

    def make(images: Tensor, window: Window, steps: Steps, _draw: Draw | None = None) -> Iterator[Tensor]:
        size, whole = _size(images), unit(images, torch.float64)
        for value in steps.values:
            yield warp(whole, affine_reads((matrix(value), value if moves else 0.0), size, window, images.device))

    return make


zooms = _affine(_scaled)
"""Frames scaled by the values of the steps: (images, window, steps) -> frames."""


def _tilt(images: Tensor, window: Window, steps: Steps, _draw: Draw) -> Iterator[Tensor]:
    """Turn the image about both of its axes in space, as far away as its diagonal is long."""
    size, whole = _size(images), unit(images, torch.float64)
    for angle in steps.values:
        yield warp(whole, tilt_reads(angle, size, window, images.device), added=HALF)


def _kept(make: Callable[[How, Size, Window, torch.device], Reads]) -> Callable[..., Reads]:
    """Keep the reads of small frames for the next batches, and of large ones the last, for a batch's other chunks.

    Large images mostly differ in size from one to the next, and reads of a frame of 224 pixels take 0.85 MB.
    """
    make = torch.inference_mode(False)(make)  # what is kept must serve callers that want gradients as well
    small, large = (functools.lru_cache(maxsize=count)(make) for count in (_KEPT, 1))

    @functools.wraps(make)
    def reads(how: How, size: Size, window: Window, device: torch.device) -> Reads:
        return (small if window[2] * window[3] <= _SMALL else large)(how, size, window, device)

    return reads


@_kept
def affine_reads(how: tuple[Matrix, float], size: Size, window: Window, device: torch.device) -> Reads:
    """Where frames read that an affine map makes.

    Args:
        how: the map about the centre, and pixels to the right afterwards.
        size: height and width of the image.
        window: of the frame.
        device: of the images.
    """
    ((a, b), (c, d)), moved = how
    area = a * d - b * c
    middle_down, middle_right = (length * 0.5 + 0.5 for length in size)
    down, right = _pixels(window, device)
    down, right = down + (0.5 - middle_down), right + (0.5 - middle_right - moved)
    back_right = right * (d / area) - down * (b / area) + middle_right
    back_down = down * (a / area) - right * (c / area) + middle_down
    return reads_inside(back_down, back_right, size)


@_kept
def tilt_reads(angle: float, size: Size, window: Window, device: torch.device) -> Reads:
    """Where frames read that are tilted by an angle in degrees."""
    back = torch.linalg.inv(tilt_matrix(angle, size)).tolist()
    down, right = _pixels(window, device)
    across, along, depth = (row[0] * right + row[1] * down + row[2] for row in back)
    return reads_over_the_edge(along / depth + 0.5, across / depth + 0.5, size)


def tilt_matrix(angle: float, size: Size) -> Tensor:
    """The map of a tilt, from homogeneous pixels of the image to those of the frame, float64 (3, 3).

    M = P2 T Rx Ry P1: P1 puts the pixel (x, y) at (x - w / 2, y - h / 2, 1), Ry and Rx turn it about both axes by the
    angle, T moves it away by the diagonal f, and P2 projects it with the focal length f. Even without a turn the image
    is f + 1 away, and so smaller by f / (f + 1).
    """
    height, width = size
    turn, far = math.radians(angle), math.hypot(width, height)
    cosine, sine = math.cos(turn), math.sin(turn)
    rows = (
        [[far, 0, width / 2, 0], [0, far, height / 2, 0], [0, 0, 1, 0]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, far], [0, 0, 0, 1]],
        [[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]],
        [[cosine, 0, -sine, 0], [0, 1, 0, 0], [sine, 0, cosine, 0], [0, 0, 0, 1]],
        [[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1], [0, 0, 1]],
    )
    return functools.reduce(torch.matmul, (torch.tensor(each, dtype=torch.float64) for each in rows))


def _size(images: Tensor) -> Size:
    return images.shape[2], images.shape[3]


def _pixels(window: Window, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (h, 1) and columns (w,) of the pixels of a window, float64, the first pixel of the image being 0."""
    top, left, height, width = window
    rows = torch.arange(top, top + height, dtype=torch.float64, device=device)
    return rows[:, None], torch.arange(left, left + width, dtype=torch.float64, device=device)


GEOMETRY = (
    Perturbation(name="translate", make=_affine(_identity, moves=True), whole=True),
    Perturbation(name="rotate", make=_affine(_turned), whole=True),
    Perturbation(name="tilt", make=_tilt, whole=True),
    Perturbation(name="scale", make=_affine(_scaled), whole=True),
    Perturbation(name="shear", make=_affine(_sheared), whole=True),
)
