"""Sequences that move an image: against Pillow, SciPy and OpenCV, and closed forms."""

import gc
import math

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions.sequences import count, geometry, sequence
from robust_bench.corruptions.sequences.geometry import tilt_matrix
from robust_bench.corruptions.sequences.warp import Reads
from scipy import ndimage

SIZES = [("imagenet", (256, 279)), ("imagenet", (301, 256)), ("cifar", (32, 32)), ("cifar", (41, 32))]
presets = pytest.mark.parametrize(("preset", "size"), SIZES, ids=str)


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def smooth(size):
    rows, columns = np.meshgrid(*(np.arange(side) for side in size), indexing="ij")
    waves = [np.sin(rows / 19 + shift) * np.cos(columns / 23 - shift) for shift in (0, 1, 2)]
    return np.stack([np.rint(127.5 + 120 * wave) for wave in waves], axis=2).astype(np.uint8)


def found(pixels, name, preset):
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    return sequence(images, name, preset)[0].permute(0, 2, 3, 1).numpy()


def cut(frame, preset):
    """The centre as torchvision cuts it."""
    if preset == "cifar":
        return frame
    top, left = (round((side - 224) / 2) for side in frame.shape[:2])
    return frame[top : top + 224, left : left + 224]


def moved(pixels, back, translate=(0, 0), resample=Image.Resampling.BILINEAR):
    """Pillow's affine transform about (W / 2 + 1/2, H / 2 + 1/2), as the published scripts call it by torchvision.

    The matrix leads back from the frame to the image.
    """
    height, width = pixels.shape[:2]
    centre = np.array([width / 2 + 0.5, height / 2 + 0.5])
    back = np.array(back, dtype=float)
    shift = centre - back @ (centre + translate)
    rows = [*back[0], shift[0], *back[1], shift[1]]
    return np.asarray(Image.fromarray(pixels).transform((width, height), Image.Transform.AFFINE, rows, resample))


def turned_back(degrees):
    angle = math.radians(degrees)
    return [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]


def sheared_back(degrees):
    """The inverse of [[1, -sin], [0, cos]]."""
    angle = math.radians(degrees)
    return [[1, math.tan(angle)], [0, 1 / math.cos(angle)]]


def off_the_outline(size, back):
    """Where a pixel does not read exactly on the image's outline: there the last bit of Pillow's sum would decide."""
    centre = np.array([size[1] / 2 + 0.5, size[0] / 2 + 0.5])
    rows, columns = np.meshgrid(*(np.arange(side) + 0.5 for side in size), indexing="ij")
    places = np.tensordot(np.array(back), np.stack([columns, rows]) - centre[:, None, None], axes=1)
    clear = np.ones(size, dtype=bool)
    for axis, side in ((0, size[1]), (1, size[0])):
        place = places[axis] + centre[axis]
        clear &= (np.abs(place) > 1e-6) & (np.abs(place - side) > 1e-6)
    return clear[..., None]


@presets
@pytest.mark.parametrize("name", ["rotate", "shear", "scale"])
def test_frames_are_those_of_pillow(preset, size, name):
    pixels = noise(size)
    first, step = (40, 2.5) if preset == "imagenet" else (70, 2)
    matrices = {
        "rotate": lambda frame: turned_back(frame - 15),
        "shear": lambda frame: sheared_back(frame - 15),
        "scale": lambda frame: np.eye(2) / ((first + step * frame) / 100),
    }[name]
    frames = found(pixels, name, preset).astype(int)
    assert len(frames) == 31
    expected = np.stack([cut(moved(pixels, matrices(frame)), preset) for frame in range(31)])
    clear = np.stack([cut(off_the_outline(size, matrices(frame)), preset) for frame in range(31)])
    assert clear.mean() > 0.99
    apart = np.abs(frames - expected) * clear
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.02


@presets
def test_translation_is_by_whole_pixels_to_the_right(preset, size):
    pixels = noise(size)
    count, middle = (41, 20) if preset == "imagenet" else (16, 7)
    frames = found(pixels, "translate", preset)
    assert len(frames) == count
    for frame, picture in enumerate(frames):
        expected = moved(pixels, np.eye(2), (frame - middle, 0), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(picture, cut(expected, preset))


def test_black_comes_in_where_the_image_ends():
    white = np.full((256, 256, 3), 255, dtype=np.uint8)
    assert (found(white, "translate", "imagenet")[0] == np.where(np.arange(224) < 220, 255, 0)[None, :, None]).all()
    share = (found(white, "scale", "imagenet")[0] > 0).mean()
    assert share == pytest.approx((0.4 * 256 / 224) ** 2, rel=0.02)
    small = found(white[:32, :32], "translate", "cifar")
    assert (small[0][:, -7:] == 0).all()
    assert (small[15][:, :8] == 0).all()


def test_a_point_turns_clockwise():
    pixels = np.zeros((257, 257, 3), dtype=np.uint8)
    pixels[128, 200:205] = 255  # to the right of the centre
    rows = [np.argwhere(frame[..., 0] > 0)[:, 0].mean() for frame in found(pixels, "rotate", "imagenet")]
    assert rows == sorted(rows)
    assert rows[30] - rows[15] == pytest.approx(73.5 * math.sin(math.radians(15)), abs=0.5)


def tilted(angle, size):
    """The map from pixels (x, y) to pixels, matrix by matrix."""
    height, width = size
    f, turned = math.hypot(*size), np.deg2rad(angle)
    cosine, sine = np.cos(turned), np.sin(turned)
    first = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1], [0, 0, 1]])
    x_axis, y_axis, away = np.eye(4), np.eye(4), np.eye(4)
    x_axis[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    y_axis[::2, ::2][:2, :2] = [[cosine, -sine], [sine, cosine]]
    away[2, 3] = f
    last = np.array([[f, 0, width / 2, 0], [0, f, height / 2, 0], [0, 0, 1, 0]])
    return last @ away @ x_axis @ y_axis @ first


@presets
def test_tilts_are_read_where_the_map_leads_back_to(preset, size):
    pixels, step = noise(size), 1.0 if preset == "imagenet" else 0.75
    frames = found(pixels, "tilt", preset)
    rows, columns = np.meshgrid(*(np.arange(side, dtype=float) for side in size), indexing="ij")
    places = np.stack([columns, rows, np.ones_like(rows)])
    for frame in (0, 4, 15, 22, 30):
        back = np.tensordot(np.linalg.inv(tilted(step * (frame - 15), size)), places, axes=1)
        across, down = back[0] / back[2], back[1] / back[2]
        read = [
            ndimage.map_coordinates(plane.astype(float), [down, across], order=1, mode="grid-constant")
            for plane in np.moveaxis(pixels, 2, 0)
        ]
        apart = np.abs(frames[frame].astype(int) - np.rint(cut(np.stack(read, axis=2), preset)))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 2e-3


@presets
def test_tilts_are_those_of_opencv(preset, size):
    opencv = pytest.importorskip("cv2")
    pixels, step = smooth(size), 1.0 if preset == "imagenet" else 0.75
    inside = (slice(4, -4), slice(4, -4)) if preset == "cifar" else (slice(None), slice(None))
    for frame, picture in enumerate(found(pixels, "tilt", preset)):
        warped = opencv.warpPerspective(pixels, tilted(step * (frame - 15), size), size[::-1])
        apart = np.abs(picture.astype(int) - cut(warped, preset))[inside]
        assert apart.max() <= 2  # OpenCV 4 rounds places to 1/32 pixel
        assert apart.mean() < 0.25


@pytest.mark.parametrize("size", [(256, 256), (256, 341), (32, 32)], ids=str)
def test_a_tilt_keeps_the_centre_and_shrinks_a_little(size):
    height, width = size
    f = math.hypot(*size)
    centre = tilt_matrix(0.0, size).numpy() @ [width / 2, height / 2, 1.0]
    np.testing.assert_allclose(centre[:2] / centre[2], [width / 2, height / 2])
    corner = tilt_matrix(0.0, size).numpy() @ [0.0, 0.0, 1.0]
    shrunk = f / (f + 1)
    np.testing.assert_allclose(corner[:2] / corner[2], [width / 2 * (1 - shrunk), height / 2 * (1 - shrunk)])
    np.testing.assert_allclose(tilt_matrix(7.0, size).numpy(), tilted(7.0, size), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "how"), [("rotate", "reads_inside"), ("tilt", "reads_over_the_edge")])
def test_batches_of_small_images_share_places_and_large_images_leave_little_behind(monkeypatch, name, how):
    made, work_out = [], getattr(geometry, how)
    monkeypatch.setattr(geometry, how, lambda *given: made.append(1) or work_out(*given))
    small, large = (torch.zeros(2, 3, *size, dtype=torch.uint8) for size in ((33, 35), (256, 271)))
    for _ in range(2):
        sequence(small, name, "cifar")
        assert len(made) == count(name, "cifar")
    sequence(large, name, "imagenet")  # two chunks
    assert len(made) == count(name, "cifar") + count(name, "imagenet")
    gc.collect()
    kept = sum(each.places.nbytes for each in gc.get_objects() if type(each) is Reads)
    assert kept < 8e6  # a sequence of 31 frames would be 25 MB
