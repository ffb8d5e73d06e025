"""YUV in 8 bits, against the standards' values and Pillow."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.colour_path import COLOUR_PATHS, ENCODINGS, ColourPath, to_rgb, to_yuv


def pixel(*values):
    return torch.tensor(values, dtype=torch.uint8)[None, :, None, None]


@pytest.fixture(scope="module")
def colours():
    """Every 15th level of each channel, and noise."""
    grid = torch.tensor(list(itertools.product(range(0, 256, 15), repeat=3)), dtype=torch.uint8).T[None, :, :, None]
    noise = torch.randint(0, 256, (1, 3, 4000, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.cat((grid, noise), dim=2)


@pytest.mark.parametrize(
    ("encoding", "rgb", "yuv"),
    [
        ("601-limited", (255, 255, 255), (235, 128, 128)),
        ("601-limited", (0, 0, 0), (16, 128, 128)),
        ("601-limited", (255, 0, 0), (81, 90, 240)),
        ("601-limited", (0, 255, 0), (145, 54, 34)),
        ("601-limited", (0, 0, 255), (41, 240, 110)),
        ("709-limited", (255, 255, 255), (235, 128, 128)),
        ("709-limited", (255, 0, 0), (63, 102, 240)),
        ("709-limited", (0, 255, 0), (173, 42, 26)),
        ("709-limited", (0, 0, 255), (32, 240, 118)),
        ("601-full", (255, 0, 0), (76, 85, 255)),
        ("601-full", (0, 255, 0), (150, 44, 21)),
        ("601-full", (0, 0, 255), (29, 255, 107)),
        ("709-full", (255, 255, 255), (255, 128, 128)),
    ],
)
def test_known_colours(encoding, rgb, yuv):
    """The colour bars at full saturation that the tables of the standards' users list."""
    assert torch.equal(to_yuv(pixel(*rgb), encoding), pixel(*yuv))
    assert (to_rgb(pixel(*yuv), encoding).int() - pixel(*rgb).int()).abs().max() <= 2


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_grey_has_no_colour_and_stays_grey(encoding):
    grey = torch.arange(256, dtype=torch.uint8)[None, None, :, None].expand(1, 3, 256, 1)
    planes = to_yuv(grey, encoding)
    assert planes[:, 1:].unique().tolist() == [128]
    lowest, highest = (0, 255) if encoding.endswith("full") else (16, 235)
    assert [int(planes[:, 0].min()), int(planes[:, 0].max())] == [lowest, highest]
    back = to_rgb(planes, encoding)
    assert torch.equal(back[:, 0], back[:, 1])
    assert torch.equal(back[:, 1], back[:, 2])
    assert (back.int() - grey.int()).abs().max() <= (0 if encoding.endswith("full") else 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_there_and_back_is_within_rounding(encoding, colours, apart):
    """Half a level of luma and of chroma, times how much each moves a channel."""
    most, mean, _ = apart(ColourPath(written=encoding, read=encoding)(colours), colours)
    assert most <= (2 if encoding.endswith("full") else 3)
    assert 0.2 < mean < 0.8


THERE = {  # as JFIF and BT.709 print them, to six digits
    "601": [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
    "709": [[0.2126, 0.7152, 0.0722], [-0.114572, -0.385428, 0.5], [0.5, -0.454153, -0.045847]],
}
BACK = {
    "601": [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]],
    "709": [[1.0, 0.0, 1.5748], [1.0, -0.187324, -0.468124], [1.0, 1.8556, 0.0]],
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_ways_are_the_printed_matrices(encoding, colours, apart):
    standard, _, span = encoding.partition("-")
    offset = np.array([0, 128, 128] if span == "full" else [16, 128, 128])
    height = np.array([255, 255, 255] if span == "full" else [219, 224, 224])
    rgb = colours[0, :, :, 0].T.numpy() / 255
    there = np.floor((rgb @ np.array(THERE[standard]).T) * height + offset + 0.5).clip(0, 255)
    planes = to_yuv(colours, encoding)
    most, _, share = apart(planes[0, :, :, 0], torch.from_numpy(there.T))
    assert most <= 1
    assert share < 0.005  # halves, which six digits miss
    rgb = (planes[0, :, :, 0].T.numpy() - offset) / height @ np.array(BACK[standard]).T
    most, _, share = apart(
        to_rgb(planes, encoding)[0, :, :, 0], torch.from_numpy((rgb.T * 255 + 0.5).clip(0, 255) // 1)
    )
    assert most <= 1
    assert share < 0.001


def test_full_601_is_that_of_pillow(colours):
    """It rounds down on the way there."""
    pixels = colours[0].permute(1, 2, 0).contiguous().numpy()
    pillow = torch.from_numpy(np.array(Image.fromarray(pixels).convert("YCbCr"))).permute(2, 0, 1)[None]
    assert set((to_yuv(colours, "601-full").int() - pillow.int()).unique().tolist()) == {0, 1}


def test_mistaken_ranges_stretch_or_fade():
    grey = torch.tensor([0, 16, 126, 235, 255], dtype=torch.uint8)[None, None, :, None].expand(1, 3, 5, 1)
    stretched = COLOUR_PATHS["full-read-as-limited"](grey)[0, 0, :, 0].tolist()
    assert stretched == [0, 0, round(110 * 255 / 219), 255, 255]
    faded = COLOUR_PATHS["limited-read-as-full"](grey)[0, 0, :, 0].tolist()
    assert faded == [16, round(16 + 16 * 219 / 255), round(16 + 126 * 219 / 255), round(16 + 235 * 219 / 255), 235]


def test_mistaken_standards_move_colours_and_leave_grey():
    red, grey = pixel(200, 40, 40), pixel(90, 90, 90)
    for name in ("601-read-as-709", "709-read-as-601"):
        assert (COLOUR_PATHS[name](grey).int() - 90).abs().max() <= 1
        assert (COLOUR_PATHS[name](red).int() - red.int()).abs().max() > 5
    # more red in luma, read with less: what is missing comes back too bright
    assert int(COLOUR_PATHS["601-read-as-709"](red)[0, 0]) > 200 > int(COLOUR_PATHS["709-read-as-601"](red)[0, 0])


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_420_keeps_luma_and_averages_colour(how):
    """Against loops over the pixels; both sides are odd, so the last row and column stand alone."""
    images = torch.randint(0, 256, (1, 3, 7, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    planes = to_yuv(images, "601-limited")
    u = planes[0, 1].double().numpy()
    small = np.zeros((4, 5))
    for i, j in itertools.product(range(4), range(5)):
        box = [u[min(2 * i + di, 6), min(2 * j + dj, 8)] for di in (0, 1) for dj in (0, 1)]
        small[i, j] = np.floor(sum(box) / 4 + 0.5)
    expected = np.zeros((7, 9))
    for y, x in itertools.product(range(7), range(9)):
        if how == "nearest":
            expected[y, x] = small[y // 2, x // 2]
        else:  # three quarters of the nearer sample, one of the next beyond the pixel's own side
            rows = [(y // 2, 0.75), (min(max(y // 2 + (1 if y % 2 else -1), 0), 3), 0.25)]
            columns = [(x // 2, 0.75), (min(max(x // 2 + (1 if x % 2 else -1), 0), 4), 0.25)]
            expected[y, x] = np.floor(sum(a * b * small[i, j] for i, a in rows for j, b in columns) + 0.5)
    path = COLOUR_PATHS[f"420-{how}"]
    changed = torch.cat((planes[:, :1], torch.from_numpy(expected)[None, None].to(torch.uint8), planes[:, 2:]), dim=1)
    # blue has no V, so it must be what luma and this U give
    assert torch.equal(path(images)[:, 2], to_rgb(changed, "601-limited")[:, 2])


def test_a_plain_image_has_nothing_to_lose_by_420():
    plain = pixel(180, 90, 30).expand(2, 3, 5, 6)
    for how in ("nearest", "bilinear"):
        assert torch.equal(COLOUR_PATHS[f"420-{how}"](plain), COLOUR_PATHS["601-limited"](plain))
