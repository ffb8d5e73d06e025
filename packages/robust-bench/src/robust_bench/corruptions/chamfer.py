"""Distances to the nearest marked pixel along steps of a chess knight, a king and a rook.

Borgefors, "Distance transformations in digital images", Computer Vision, Graphics, and Image Processing 1986, with the
weights of OpenCV's `distanceTransform(DIST_L2, 5)`.
"""

import numpy as np
from numpy.typing import NDArray

UNIT = 1 << 16
"""What a distance of one pixel counts: weights are whole numbers, so that distances are exact."""

# Down, across, the weight of the step, and multiples that add up to every multiple within 20 pixels.
_STEPS = (
    *((down, across, 65536, (1, 2, 4, 8, 5)) for down, across in ((0, 1), (1, 0))),
    *((down, across, 91750, (1, 2, 4, 7)) for down, across in ((1, 1), (1, -1))),
    *((down, across, 143976, (1, 2, 4, 2)) for down, across in ((1, 2), (2, 1), (1, -2), (2, -1))),
)
FARTHEST = 20
"""Largest distance in pixels; farther pixels have this one."""


def distances(marked: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give the length of the shortest way to a marked pixel, at most 20 pixels, in units of 1 / 65536 pixel.

    The shortest way takes steps of two neighbouring directions at most, and their order does not matter: so every
    direction is done once, for all pixels together, in steps that double.

    Args:
        marked: (N, H, W), 8 pixels a side or more.
    """
    height, width = marked.shape[1:]
    near = np.where(marked, 0, FARTHEST * UNIT).astype(np.int32)
    longer = np.empty_like(near)
    for down, across, weight, multiples in _STEPS:
        for multiple in multiples:
            rows, left, right = down * multiple, max(0, -across * multiple), max(0, across * multiple)
            here = (..., slice(height - rows), slice(left, width - right))
            there = (..., slice(rows, height), slice(right, width - left))
            np.add(near, weight * multiple, out=longer)
            np.minimum(near[here], longer[there], out=near[here])
            np.minimum(near[there], longer[here], out=near[there])
    return near
