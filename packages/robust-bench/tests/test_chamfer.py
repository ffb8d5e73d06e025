"""Chamfer distances against the shortest of all ways, against OpenCV where it is installed, and in closed form."""

import heapq

import numpy as np
import pytest
from robust_bench.corruptions.chamfer import FARTHEST, UNIT, distances

WEIGHTS = {1: 65536, 2: 91750, 5: 143976}  # by the square of the step's length


def shortest_ways(marked):
    """Dijkstra's algorithm over the sixteen steps."""
    near = np.full(marked.shape, FARTHEST * UNIT)
    steps = [(d, a) for d in range(-2, 3) for a in range(-2, 3) if d * d + a * a in WEIGHTS]
    assert len(steps) == 16
    queue = [(0, *map(int, place)) for place in np.argwhere(marked)]
    heapq.heapify(queue)
    while queue:
        length, row, column = heapq.heappop(queue)
        if length >= near[row, column]:
            continue
        near[row, column] = length
        for down, across in steps:
            if 0 <= row + down < marked.shape[0] and 0 <= column + across < marked.shape[1]:
                heapq.heappush(queue, (length + WEIGHTS[down**2 + across**2], row + down, column + across))
    return near


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("size", [(50, 60), (9, 70), (45, 8)], ids=str)
def test_is_the_shortest_way(size, share):
    marked = np.random.default_rng(0).random((4, *size)) < share
    marked[:, 0, 0] = True  # in a corner, where ways have least room
    np.testing.assert_array_equal(distances(marked), np.stack([shortest_ways(one) for one in marked]))


def test_is_what_opencv_gives():
    opencv = pytest.importorskip("cv2")
    marked = np.random.default_rng(1).random((10, 60, 80)) < 0.005
    for one, found in zip(marked, distances(marked), strict=True):
        expected = opencv.distanceTransform(np.where(one, 0, 255).astype(np.uint8), opencv.DIST_L2, 5)
        # OpenCV may use Intel's library, which has the weights in floats.
        np.testing.assert_allclose(found / UNIT, expected.clip(max=FARTHEST), rtol=0, atol=2e-4)


def test_a_point_in_the_middle_gives_an_octagon_of_known_distances():
    marked = np.zeros((1, 61, 61), dtype=bool)
    marked[0, 30, 30] = True
    down, across = np.abs(np.mgrid[-30:31, -30:31])
    long, short = np.maximum(down, across), np.minimum(down, across)
    straight = (long - 2 * short) * 65536 + short * 143976
    slanted = (long - short) * 143976 + (2 * short - long) * 91750
    expected = np.where(2 * short <= long, straight, slanted)
    np.testing.assert_array_equal(distances(marked)[0], expected.clip(max=FARTHEST * UNIT))


def test_is_near_the_euclidean_distance():
    from scipy import ndimage

    marked = np.random.default_rng(2).random((1, 80, 80)) < 0.01
    euclidean = ndimage.distance_transform_edt(~marked[0])
    apart = np.abs(distances(marked)[0] / UNIT - euclidean)[euclidean < 19]
    assert (apart <= 0.021 * euclidean[euclidean < 19] + 1e-9).all()


def test_without_a_mark_all_is_far():
    assert (distances(np.zeros((2, 16, 16), dtype=bool)) == FARTHEST * UNIT).all()
    assert (distances(np.ones((2, 16, 16), dtype=bool)) == 0).all()
