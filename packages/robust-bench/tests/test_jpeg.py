"""JPEG: the published bytes, Pillow's bytes, and storage at quality 85."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions import Draws, corrupt
from robust_bench.corruptions.jpeg import jpeg_compression_levels


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_bytes_are_the_published_ones(published, severity, preset):
    clean, expected, _ = published("jpeg_compression", severity, preset)
    assert torch.equal(corrupt(clean, "jpeg_compression", severity, preset), expected)


def through_a_file(image, quality):
    """Write (C, H, W) as JPEG 4:2:0 and read it."""
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).contiguous().numpy())
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    array = np.array(Image.open(file))
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 19), (33, 64)], ids=str)
def test_equals_pillow_at_every_size(pictures, size, channels):
    images = pictures(count=3, size=size, channels=channels)
    found = jpeg_compression_levels(images, 40, Draws(count=3, fields={}))
    assert torch.equal(found, torch.stack([through_a_file(image, 40) for image in images]))


@pytest.mark.parametrize("name", ["contrast", "gaussian_noise"])
def test_storage_is_a_file_of_quality_85(pictures, name):
    images = pictures(size=(64, 64))
    plain = corrupt(images, name, 3, "tiny_imagenet")
    stored = corrupt(images, name, 3, "tiny_imagenet", store_jpeg85=True)
    assert torch.equal(stored, torch.stack([through_a_file(image, 85) for image in plain]))
    assert not torch.equal(stored, plain)


def test_storage_is_not_for_arrays(pictures):
    with pytest.raises(ValueError, match="store_jpeg85 is not for the preset 'cifar'"):
        corrupt(pictures(), "contrast", 3, "cifar", store_jpeg85=True)
