"""The eleven resizers, against Pillow, OpenCV, slow loops and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from robust_bench.datasets import opencv_filters, pillow_filters
from robust_bench.datasets.resizers import RESIZERS, resize

PIL = {"nearest": 0, "lanczos": 1, "bilinear": 2, "cubic": 3, "box": 4, "hamming": 5}
OPENCV = {"nearest": 0, "bilinear": 1, "cubic": 2, "area": 3, "lanczos": 4}
SIZES = [
    ((75, 100), (51, 51)),
    ((100, 75), (51, 51)),
    ((64, 96), (32, 32)),
    ((60, 60), (20, 30)),
    ((96, 32), (24, 32)),
    ((20, 16), (51, 51)),
    ((40, 60), (51, 51)),
    ((31, 17), (97, 41)),
    ((40, 40), (80, 80)),
    ((64, 50), (32, 26)),
    ((33, 57), (33, 20)),
    ((150, 7), (11, 13)),
    ((1, 1), (5, 7)),
    ((3, 90), (1, 1)),
    ((300, 300), (100, 100)),
]


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def by_pillow(plane, size, name):
    """Along the rows and then down the columns, whatever this version would choose."""
    narrow = Image.fromarray(plane.numpy()).resize((size[1], len(plane)), PIL[name])
    return torch.from_numpy(np.array(narrow.resize((size[1], size[0]), PIL[name])))


@pytest.mark.parametrize("name", PIL)
@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_pil_gives_the_bytes_of_pillow(before, after, name):
    images = noise(2, 3, *before)
    found = resize(images, after, f"pil-{name}")
    assert found.shape == (2, 3, *after)
    for plane, resized in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.equal(resized, by_pillow(plane, after, name))


@given(
    name=st.sampled_from(sorted(PIL)),
    before=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    after=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    seed=st.integers(0, 1000),
)
def test_pil_gives_the_bytes_of_pillow_at_any_size(name, before, after, seed):
    image = noise(1, 1, *before, seed=seed)
    assert torch.equal(resize(image, after, f"pil-{name}")[0, 0], by_pillow(image[0, 0], after, name))


@pytest.mark.parametrize("name", OPENCV)
@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_opencv_gives_the_levels_of_opencv(before, after, name, apart):
    cv2 = pytest.importorskip("cv2")
    image = noise(1, 3, *before)
    pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
    expected = torch.from_numpy(cv2.resize(pixels, after[::-1], interpolation=OPENCV[name])).permute(2, 0, 1)
    most, _, share = apart(resize(image, after, f"opencv-{name}")[0], expected)
    if name in ("nearest", "bilinear"):
        assert most == 0
    assert most <= 1
    assert share <= (0.1 if name == "cubic" else 0.02)  # OpenCV without Intel's IPP has another cubic


@given(
    name=st.sampled_from(sorted(OPENCV)),
    before=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    after=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    seed=st.integers(0, 1000),
)
def test_opencv_is_within_a_level_of_opencv_at_any_size(name, before, after, seed):
    cv2 = pytest.importorskip("cv2")
    image = noise(1, 1, *before, seed=seed)
    expected = cv2.resize(image[0, 0].numpy(), after[::-1], interpolation=OPENCV[name])
    difference = np.abs(resize(image, after, f"opencv-{name}")[0, 0].int().numpy() - expected)
    assert difference.max() <= (0 if name in ("nearest", "bilinear") else 1)


# ---- the same filters from their definitions, one pixel at a time ----


def keys(a):
    def kernel(x):
        x = abs(x)
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    return kernel


def lanczos(lobes):
    def kernel(x):
        if abs(x) >= lobes:
            return 0.0
        return 1.0 if x == 0 else lobes * math.sin(math.pi * x) * math.sin(math.pi * x / lobes) / (math.pi * x) ** 2

    return kernel


def hamming(x):
    if abs(x) >= 1:
        return 0.0
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x) * (0.54 + 0.46 * math.cos(math.pi * x))


def tent(x):
    return max(0.0, 1.0 - abs(x))


def weights_of(kernel, length, size, *, widens, clamps):
    """Matrix (size, length): the kernel around each new pixel's centre, normalised."""
    out = np.zeros((size, length))
    ratio = length / size
    width = max(ratio, 1.0) if widens else 1.0
    for row in range(size):
        centre = (row + 0.5) * ratio
        for place in range(-10, length + 10):
            inside = min(max(place, 0), length - 1)
            if inside == place or clamps:
                out[row, inside] += kernel((place + 0.5 - centre) / width)
    return out / out.sum(1, keepdims=True)


def dense(taps, length):
    places, shares = taps
    return torch.zeros(len(places), length, dtype=torch.float64).scatter_add_(1, places, shares.double()).numpy()


LENGTHS = [(50, 26), (26, 50), (30, 10), (7, 9), (64, 64), (100, 3), (2, 11)]


@pytest.mark.parametrize(("length", "size"), LENGTHS)
@pytest.mark.parametrize(
    ("name", "kernel"),
    [("bilinear", tent), ("hamming", hamming), ("cubic", keys(-0.5)), ("lanczos", lanczos(3))],
)
def test_pillows_weights_are_the_widened_filters(name, kernel, length, size):
    expected = weights_of(kernel, length, size, widens=True, clamps=False)
    np.testing.assert_allclose(dense(pillow_filters.taps(name, length, size), length), expected, atol=2e-8)


@pytest.mark.parametrize(("length", "size"), LENGTHS)
@pytest.mark.parametrize(("name", "kernel"), [("bilinear", tent), ("cubic", keys(-0.75)), ("lanczos", lanczos(4))])
def test_opencvs_weights_are_the_filters_as_they_are(name, kernel, length, size):
    expected = weights_of(kernel, length, size, widens=False, clamps=True)
    np.testing.assert_allclose(dense(opencv_filters.taps(name, length, size), length), expected, atol=1e-5)


def test_weights_in_closed_form():
    def row(taps, number=0):
        return [share for share in taps[1][number].tolist() if share]

    assert row(opencv_filters.taps("cubic", 8, 4), 1) == [-0.09375, 0.59375, 0.59375, -0.09375]
    assert row(pillow_filters.taps("cubic", 4, 8), 4) == [-9 / 128, 111 / 128, 29 / 128, -3 / 128][::-1]
    assert row(opencv_filters.taps("bilinear", 4, 8), 3) == [0.75, 0.25]
    assert row(pillow_filters.taps("bilinear", 8, 4), 1) == [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    assert row(pillow_filters.taps("box", 6, 2), 1) == pytest.approx([1 / 3] * 3)
    assert row(opencv_filters.taps("mean", 3, 2), 0) == pytest.approx([2 / 3, 1 / 3])
    assert row(opencv_filters.taps("mean", 3, 2), 1) == pytest.approx([1 / 3, 2 / 3])
    assert dense(opencv_filters.taps("area", 2, 3), 2).tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert dense(opencv_filters.taps("area", 2, 4), 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(("length", "size"), LENGTHS)
@pytest.mark.parametrize("name", [*pillow_filters.FILTERS, "opencv-bilinear", "opencv-cubic", "opencv-lanczos"])
def test_weights_sum_to_one_and_mirror(name, length, size):
    own = name in pillow_filters.FILTERS
    matrix = dense((pillow_filters if own else opencv_filters).taps(name.removeprefix("opencv-"), length, size), length)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-7)
    if name != "box":  # a pixel's centre on the edge of a box is in one of two boxes only
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-4)  # OpenCV's places are float32


@pytest.mark.parametrize(("length", "size"), [(50, 26), (30, 10), (100, 3), (9, 8)])
def test_area_keeps_the_sum(length, size):
    """But for slivers below a thousandth, which OpenCV leaves out."""
    matrix = dense(opencv_filters.taps("mean", length, size), length)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(matrix.sum(0), size / length, atol=1e-9)


def test_means_of_whole_pixels_round_as_opencv_does():
    """Halves go up in boxes of 2 x 2 and to the even level in all others."""
    column = torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    square = torch.stack((column, column), dim=1)[None, None]
    assert resize(square, (2, 1), "opencv-area").flatten().tolist() == [1, 3]
    assert resize(column[None, None, :, None], (2, 1), "opencv-area").flatten().tolist() == [0, 2]


# ---- laws ----


@pytest.mark.parametrize("resizer", RESIZERS)
def test_the_same_size_is_the_same_image_in_another_tensor(resizer):
    images = noise(1, 3, 13, 17)
    found = resize(images, (13, 17), resizer)
    assert torch.equal(found, images)
    assert found.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize(("before", "after"), [((30, 41), (17, 23)), ((7, 9), (31, 50)), ((64, 50), (32, 25))])
def test_a_plain_image_stays_plain(resizer, before, after):
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None]
    assert torch.equal(resize(levels.expand(256, 1, *before), after, resizer), levels.expand(256, 1, *after))


@pytest.mark.parametrize("resizer", RESIZERS)
def test_images_do_not_depend_on_each_other_nor_on_their_layout(resizer):
    images = noise(3, 2, 40, 37)
    kept = images.clone()
    found = resize(images, (21, 50), resizer)
    assert torch.equal(images, kept)
    assert torch.equal(resize(images[1:2], (21, 50), resizer), found[1:2])
    assert torch.equal(resize(images[:, :1], (21, 50), resizer), found[:, :1])
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(resize(turned, (21, 50), resizer), found)
    assert resize(images[:0], (21, 50), resizer).shape == (0, 2, 21, 50)


@pytest.mark.gpu
@pytest.mark.parametrize("resizer", RESIZERS)
def test_a_gpu_gives_the_same_bytes(resizer):
    images = noise(2, 3, 375, 500)
    for size in ((256, 256), (400, 600)):
        assert torch.equal(resize(images.cuda(), size, resizer).cpu(), resize(images, size, resizer))


@pytest.mark.parametrize(
    ("images", "size", "resizer", "error", "word"),
    [
        (torch.rand(1, 3, 4, 4), (2, 2), "pil-box", TypeError, "uint8"),
        (noise(3, 4, 4), (2, 2), "pil-box", ValueError, r"\(N, C, H, W\)"),
        (noise(1, 3, 0, 4), (2, 2), "pil-box", ValueError, "with pixels"),
        (noise(1, 3, 4, 4), (2, 0), "pil-box", ValueError, "at least 1 pixel"),
        (noise(1, 3, 4, 4), (2, 2), "opencv-box", ValueError, "choose from pil-nearest"),
    ],
)
def test_what_cannot_be_resized_is_told(images, size, resizer, error, word):
    with pytest.raises(error, match=word):
        resize(images, size, resizer)
