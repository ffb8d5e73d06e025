"""Pixelation: the published bytes, and Pillow's at every size."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions import PRESETS, Draws, corrupt
from robust_bench.corruptions.pixelate import _shrunk, pixelate_levels


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_bytes_are_the_published_ones(published, severity, preset):
    clean, expected, _ = published("pixelate", severity, preset)
    assert torch.equal(corrupt(clean, "pixelate", severity, preset), expected)


def with_pillow(plane, scale):
    """Pixelate one channel (H, W), the rows first, whatever Pillow would choose."""
    picture = Image.fromarray(plane.numpy())
    width, height = picture.size
    small_width, small_height = max(1, int(width * scale)), max(1, int(height * scale))
    narrow = picture.resize((small_width, height), Image.Resampling.BOX)
    small = narrow.resize((small_width, small_height), Image.Resampling.BOX)
    return small, torch.from_numpy(np.array(small.resize((width, height), Image.Resampling.NEAREST)))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 70), (37, 23), (97, 224), (299, 131)], ids=str)
def test_equals_pillow_at_every_size(size, channels, preset):
    """The arithmetic in integers, which serves GPUs, is compared here as well."""
    images = torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for scale in PRESETS[preset].constants["pixelate"]:
        found = pixelate_levels(images, scale, Draws(count=2, fields={}))
        for image, result in zip(images, found, strict=True):
            for plane, pixelated in zip(image, result, strict=True):
                small, expected = with_pillow(plane, scale)
                assert torch.equal(pixelated, expected)
                shrunk = _shrunk(plane[None, None], small.size[1], small.size[0])
                assert torch.equal(shrunk[0, 0], torch.from_numpy(np.array(small)))
