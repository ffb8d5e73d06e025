"""The sheet holds what `corrupt` makes, where a reader looks for it."""

import itertools
import re

import numpy as np
import pytest
import torch
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, contact_sheet, corrupt

EVERYTHING = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)


def noisy(channels=3, height=32, width=32):
    """An image without two equal rows, so that a tile lies in one place only."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)


def places(sheet, tile):
    """(top, left) of every exact copy of a tile (C, H, W) on the sheet."""
    pixels, wanted = np.asarray(sheet), tile.expand(3, -1, -1).permute(1, 2, 0).numpy()
    height, width = wanted.shape[:2]
    inside = pixels[: pixels.shape[0] - height + 1, : pixels.shape[1] - width + 1]
    starts = np.argwhere((inside == wanted[0, 0]).all(axis=-1))
    return [(top, left) for top, left in starts if (pixels[top : top + height, left : left + width] == wanted).all()]


def place(sheet, tile):
    (found,) = places(sheet, tile)
    return found


def twice(image):
    """Every pixel as a square of four."""
    return image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def test_severities_go_from_left_to_right_and_corruptions_downwards():
    image = noisy()
    sheet = contact_sheet(image, seed=3, tile=32)
    rows = {}
    for name in EVERYTHING:
        found = [place(sheet, corrupt(image[None], name, level, "cifar", seed=3)[0]) for level in (1, 2, 3, 4, 5)]
        (rows[name],) = {top for top, _ in found}
        lefts = [left for _, left in found]
        assert lefts == sorted(lefts)
        assert (rows[name], 2 * lefts[0] - lefts[1]) in places(sheet, image)  # the clean one, a step to the left
    assert len(places(sheet, image)) == len(EVERYTHING)
    for above, below in itertools.combinations(EVERYTHING, 2):
        if GROUPS[above] == GROUPS[below]:
            assert rows[above] < rows[below]


def test_every_row_has_a_name_at_its_left_and_the_extra_ones_a_fainter_one():
    image = noisy()
    sheet = contact_sheet(image, tile=64)
    pixels = np.asarray(sheet.convert("L"))
    cleans = places(sheet, twice(image))
    margin = min(left for _, left in cleans) - 4  # the sheet has an edge of four pixels
    darkest = {}
    for name in EVERYTHING:
        top, first = place(sheet, twice(corrupt(image[None], name, 1, "cifar")[0]))
        (clean,) = (left for height, left in cleans if height == top and 0 < first - left < 100)
        darkest[name] = pixels[top : top + 64, clean - margin : clean].min()
    assert max(darkest[name] for name in CORRUPTIONS) < 80
    assert all(100 < darkest[name] < 200 for name in EXTRA_CORRUPTIONS)


def test_a_small_image_has_fewer_rows_and_is_enlarged_without_smoothing():
    image = noisy(height=8, width=8)
    sheet = contact_sheet(image, tile=16)
    small = [name for name in EVERYTHING if "noise" in name]
    small += ["brightness", "contrast", "pixelate", "jpeg_compression", "saturate"]
    assert len(places(sheet, twice(image))) == len(small)
    for name in small:
        assert places(sheet, twice(corrupt(image[None], name, 4, "cifar")[0]))


def test_a_wide_image_keeps_its_shape_when_shrunk():
    image = torch.tensor([200, 60, 10], dtype=torch.uint8)[:, None, None].expand(3, 48, 96)
    sheet = np.asarray(contact_sheet(image, "tiny_imagenet", tile=32))
    same = (sheet == np.array([200, 60, 10])).all(axis=-1)
    (top, left) = np.argwhere(same)[0]
    assert same[top : top + 16, left : left + 32].all()
    assert not same[top + 16, left]
    assert not same[top, left + 32]


def test_a_grey_image_stays_grey():
    image = noisy(channels=1)
    sheet = contact_sheet(image, tile=32)
    for name in ("gaussian_noise", "fog", "spatter"):
        assert len(places(sheet, corrupt(image[None], name, 5, "cifar")[0])) == 1


def test_the_seed_decides_and_nothing_else_changes():
    image = noisy()
    before, state = image.clone(), torch.random.get_rng_state()
    sheet = contact_sheet(image, tile=32)
    assert torch.equal(image, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert contact_sheet(image, "cifar", tile=32) == sheet
    assert contact_sheet(image, seed=1, tile=32) != sheet


def test_mistakes_are_told():
    with pytest.raises(TypeError, match="must be a torch tensor"):
        contact_sheet(np.zeros((3, 32, 32), dtype=np.uint8))
    with pytest.raises(ValueError, match="must be one image"):
        contact_sheet(noisy()[None])
    for shape in ((4, 32, 32), (3, 0, 32), (3, 32, 0), (0, 32, 32)):
        with pytest.raises(ValueError, match=re.escape(f"(3, H, W) or (1, H, W), got the shape {shape}")):
            contact_sheet(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"image must be uint8, got torch\.float32: convert"):
        contact_sheet(noisy() / 255)
    with pytest.raises(ValueError, match="tile must be at least 16"):
        contact_sheet(noisy(), tile=15)
    with pytest.raises(ValueError, match="unknown preset 'imagenet21k'"):
        contact_sheet(noisy(), "imagenet21k")
