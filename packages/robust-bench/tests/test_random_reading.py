"""Training images through random decoders and resizers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.library_resize import resized
from robust_bench.datasets.random_reading import RandomReading
from robust_bench.datasets.resizers import RESIZERS
from torchvision.transforms import RandomResizedCrop

CELLS = tuple(("pil", resizer) for resizer in RESIZERS)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def content(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(60, 80), (375, 500), (10, 200), (200, 10), (1, 1)])
def test_parts_are_those_of_torchvision(height, width):
    """The same random numbers in the same order; very long images take the centre now and then."""
    reading = RandomReading(cells=CELLS)
    image = torch.zeros(3, height, width)
    for seed in range(100):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = RandomResizedCrop.get_params(image, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
        assert reading.crop(height, width, torch.Generator().manual_seed(seed)) == tuple(expected)


def test_parts_have_the_areas_and_shapes_that_were_asked_for():
    reading = RandomReading(cells=CELLS, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    generator = torch.Generator().manual_seed(0)
    parts = [reading.crop(1000, 1000, generator) for _ in range(2000)]
    assert all(top + high <= 1000 and left + wide <= 1000 and min(top, left) >= 0 for top, left, high, wide in parts)
    shares = torch.tensor([high * wide / 1e6 for _, _, high, wide in parts])
    ratios = torch.tensor([wide / high for _, _, high, wide in parts]).log() / np.log(2)
    assert 0.199 < shares.min() < 0.205
    assert 0.495 < shares.max() < 0.501
    assert abs(float(ratios.mean())) < 0.05  # as often wide as tall
    assert abs(float((ratios.abs() < 0.5).float().mean()) - 0.5) < 0.05


def test_the_image_is_the_part_resized_by_the_drawn_resizer(pixels, content):
    reading = RandomReading(cells=CELLS, size=24, by="torch")
    seen = set()
    for seed in range(60):
        found = reading.read(content, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        _, resizer = CELLS[int(torch.randint(11, (), generator=generator))]
        top, left, height, width = reading.crop(60, 80, generator)
        part = pixels[top : top + height, left : left + width]
        expected = torch.from_numpy(resized(part, (24, 24), resizer, "torch")).permute(2, 0, 1)
        assert found.dtype == torch.uint8
        assert torch.equal(found, expected)
        seen.add(resizer)
    assert seen == set(RESIZERS)


def test_a_generator_leaves_the_global_state_alone(content):
    state = torch.get_rng_state()
    RandomReading(cells=CELLS, by="torch").read(content, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"cells": ()}, "empty"),
        ({"cells": (("dali", "pil-box"),)}, "unknown decoder"),
        ({"cells": (("pil", "box"),)}, "unknown resizer"),
        ({"by": "cv2"}, "'library' or by 'torch'"),
        ({"size": 0}, "size"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
    ],
)
def test_impossible_settings_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        RandomReading(**{"cells": CELLS} | changes)
