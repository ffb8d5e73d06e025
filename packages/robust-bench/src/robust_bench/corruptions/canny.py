"""Edges of grey images by Canny's method.

Canny, "A computational approach to edge detection", IEEE TPAMI 1986, in the integer arithmetic of OpenCV's `Canny`:
3 x 3 Sobel filters, the sum of both gradients' sizes, directions told apart at a tangent of 13573 / 2^15.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Levels = NDArray[np.uint8]

_TAN_BITS = 15
_TAN = 13573  # tangent of 22.5 degrees, with as many fractional bits


def canny(levels: Levels, low: int, high: int) -> NDArray[np.bool_]:
    """Find the edges of grey images.

    A pixel is a candidate where the gradient is larger than `low` and than at both neighbours across the edge. Groups
    of touching candidates are edges if the gradient exceeds `high` somewhere in the group.

    Args:
        levels: uint8 (N, H, W).
        low: for a candidate.
        high: for one pixel of an edge.

    Returns:
        (N, H, W), where there is an edge.
    """
    across, down = _sobel(np.pad(levels.astype(np.int16), ((0, 0), (2, 2), (2, 2)), mode="edge"))
    slope = np.abs(across) + np.abs(down)
    slope[:, [0, -1]] = slope[:, :, [0, -1]] = 0  # a frame around each image
    line = slope.shape[2]
    place = np.flatnonzero(slope > low)  # what follows looks at these alone
    across, down = across.ravel()[place].astype(np.int32), down.ravel()[place].astype(np.int32)
    size, rise = np.abs(across) * _TAN, np.abs(down) << _TAN_BITS
    level, upright = rise < size, rise > size + (np.abs(across) << (_TAN_BITS + 1))
    step = np.where(level, 1, np.where(upright, line, np.where((across ^ down) < 0, line - 1, line + 1)))
    flat = slope.ravel()
    own, after = flat[place], flat[place + step]
    largest = (own > flat[place - step]) & ((own > after) | ((own == after) & (level | upright)))
    kept, edges = place[largest], np.zeros(slope.size, dtype=np.bool_)
    edges[kept] = True
    groups, count = ndimage.label(edges.reshape(-1, line), structure=np.ones((3, 3)))  # the frames keep images apart
    strong, groups = np.zeros(count + 1, dtype=np.bool_), groups.ravel()[kept]
    strong[groups[own[largest] > high]] = True
    edges[kept] = strong[groups]
    return edges.reshape(slope.shape)[:, 1:-1, 1:-1]


def _sobel(wide: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Differences across and down, smoothed by 1 2 1 the other way; the result is a pixel narrower on every side."""
    smooth = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    across = smooth[:, :, 2:] - smooth[:, :, :-2]
    smooth = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
    return across, smooth[:, 2:] - smooth[:, :-2]
