"""Canny's edges against a plain loop over pixels, against OpenCV where it is installed, and on known shapes."""

import math

import numpy as np
import pytest
from robust_bench.corruptions.canny import canny
from scipy import ndimage


def noise(seed, size, sigma):
    """Blurred noise, half of it cut off to black plains with steep rims."""
    layer = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), sigma)
    layer = (layer - layer.min()) / (layer.max() - layer.min())
    return (np.where(layer < 0.5 * (seed % 2), 0, layer) * 255).astype(np.uint8)


def edges_pixel_by_pixel(levels, low, high):
    """The definition: gradients, the larger of three across the edge, then a walk from strong to weak candidates."""
    height, width = levels.shape
    at = np.pad(levels.astype(int), 1, mode="edge")
    weights = {(down, across): across * (2 - abs(down)) for down in (-1, 0, 1) for across in (-1, 0, 1)}
    slopes = {}
    for row in range(height):
        for column in range(width):
            across = sum(weights[d, a] * at[row + 1 + d, column + 1 + a] for d, a in weights)
            down = sum(weights[a, d] * at[row + 1 + d, column + 1 + a] for d, a in weights)
            slopes[row, column] = (across, down)
    size = {place: abs(across) + abs(down) for place, (across, down) in slopes.items()}
    candidates = set()
    for (row, column), (across, down) in slopes.items():
        own = size[row, column]
        if own <= low:
            continue
        angle = math.degrees(math.atan2(abs(down), abs(across)))
        if angle < 22.5:
            step, strict = (0, 1), False
        elif angle > 67.5:
            step, strict = (1, 0), False
        else:
            step, strict = (1, -1 if across * down < 0 else 1), True
        before = size.get((row - step[0], column - step[1]), 0)
        after = size.get((row + step[0], column + step[1]), 0)
        if own > before and (own > after or (own == after and not strict)):
            candidates.add((row, column))
    found, walk = set(), [place for place in candidates if size[place] > high]
    while walk:
        row, column = walk.pop()
        if (row, column) in candidates and (row, column) not in found:
            found.add((row, column))
            walk += [(row + d, column + a) for d in (-1, 0, 1) for a in (-1, 0, 1)]
    out = np.zeros((height, width), dtype=bool)
    for place in found:
        out[place] = True
    return out


@pytest.mark.parametrize("thresholds", [(50, 150), (20, 400), (100, 100)], ids=str)
@pytest.mark.parametrize(("size", "sigma"), [((32, 32), 0.5), ((23, 41), 1.0), ((40, 9), 2.0)], ids=str)
def test_is_what_a_loop_over_pixels_finds(size, sigma, thresholds):
    images = np.stack([noise(seed, size, sigma) for seed in range(4)])
    found = canny(images, *thresholds)
    assert found.any()
    for image, edges in zip(images, found, strict=True):
        np.testing.assert_array_equal(edges, edges_pixel_by_pixel(image, *thresholds))


def test_is_what_opencv_finds():
    opencv = pytest.importorskip("cv2")
    for seed in range(40):
        image = noise(seed, (30 + seed, 90 - seed), 0.5 + seed % 4)
        np.testing.assert_array_equal(canny(image[None], 50, 150)[0], opencv.Canny(image, 50, 150) > 0)


def test_edges_at_the_borders_of_two_images_are_not_joined():
    """A weak edge at the bottom of one image touches a strong one at the top of the next, but in the stack alone."""
    weak, strong = np.zeros((2, 16, 16), dtype=np.uint8)
    weak[:, 8:], strong[:, 8:] = 20, 200
    assert not canny(np.stack([weak, strong]), 50, 150)[0].any()
    assert canny(np.stack([weak, strong]), 50, 150)[1].any()


def test_a_weak_edge_counts_where_it_touches_a_strong_one():
    step = np.zeros((1, 32, 16), dtype=np.uint8)
    step[0, :, 8:] = np.linspace(20, 200, 32).astype(np.uint8)[:, None]
    assert canny(step, 50, 150)[0, 1:-1].any(axis=1).all()
    assert not canny(step // 6, 50, 150).any()


def test_a_plain_image_has_no_edge_and_a_step_has_one():
    plain = np.full((1, 16, 16), 90, dtype=np.uint8)
    assert not canny(plain, 50, 150).any()
    plain[0, :, 5:] = 200
    assert np.argwhere(canny(plain, 50, 150)[0]).tolist() == [[row, 4] for row in range(16)]
    assert canny(plain[:0], 50, 150).shape == (0, 16, 16)
