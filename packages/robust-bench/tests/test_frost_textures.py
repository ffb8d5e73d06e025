"""How textures are scaled and stacked, and how windows are cut."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions.frost_textures import textures

CPU = torch.device("cpu")


def save(folder, name, height=40, width=50, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / name)
    return torch.from_numpy(levels).permute(2, 0, 1)


def test_takes_the_first_five_by_name(tmp_path):
    pictures = {
        f"frost{number}.png": save(tmp_path, f"frost{number}.png", seed=number) for number in (3, 1, 6, 2, 5, 4)
    }
    (tmp_path / "LICENSE.txt").write_text("not a texture")
    found = textures(tmp_path, "imagenet_c", 1, 32, 32, CPU)
    assert torch.equal(found.levels, torch.stack([pictures[name] for name in sorted(pictures)[:5]]))
    assert found.sizes.tolist() == [[40, 50]] * 5
    assert textures(tmp_path, "imagenet_c", 1, 32, 32, CPU) is found  # loaded and scaled once


def test_smaller_textures_are_filled_up_and_keep_their_size(tmp_path):
    first, second = save(tmp_path, "a.png", 70, 40), save(tmp_path, "b.PNG", 40, 90)
    found = textures(tmp_path, "imagenet_c", 1, 32, 32, CPU)
    assert found.levels.shape == (2, 3, 70, 90)
    assert found.sizes.tolist() == [[70, 40], [40, 90]]
    assert torch.equal(found.levels[0, :, :, :40], first)
    assert torch.equal(found.levels[1, :, :40], second)
    assert not found.levels[0, :, :, 40:].any()


def test_windows_are_cut_alike_on_a_device(tmp_path):
    save(tmp_path, "a.png", 70, 40)
    save(tmp_path, "b.png", 40, 90, seed=1)
    found = textures(tmp_path, "imagenet_c", 1, 32, 32, CPU)
    index, corner = torch.tensor([1, 0, 1]), torch.tensor([[3, 57], [37, 7], [0, 0]])
    assert torch.equal(found._gathered(index, corner, 32, 32), found.crops(index, corner, 32, 32))


def test_a_fifth_of_the_size_takes_every_fifth_pixel(tmp_path):
    """Shrunk without smoothing, as the published scripts do: pixel i lies exactly on pixel 5 i + 2."""
    picture = save(tmp_path, "a.png", 200, 300)
    found = textures(tmp_path, "imagenet_c", 0.2, 32, 32, CPU)
    assert torch.equal(found.levels[0], picture[:, 2::5, 2::5])


def test_three_tenths_of_the_size_are_read_at_the_scales_own_places(tmp_path):
    """1 / 0.3 pixels apart, though the rounded size would put them elsewhere."""
    picture = save(tmp_path, "a.png", 121, 135).double()
    found = textures(tmp_path, "imagenet_c", 0.3, 32, 32, CPU).levels[0].double()
    assert found.shape == (3, 36, 40)
    for row, column in [(0, 0), (35, 39), (17, 8), (3, 38)]:
        down, right = (row + 0.5) / 0.3 - 0.5, (column + 0.5) / 0.3 - 0.5
        top, left = math.floor(down), math.floor(right)
        a, b = down - top, right - left
        square = picture[:, top : top + 2, left : left + 2]
        expected = (1 - a) * ((1 - b) * square[:, 0, 0] + b * square[:, 0, 1])
        expected += a * ((1 - b) * square[:, 1, 0] + b * square[:, 1, 1])
        assert (found[:, row, column] - expected).abs().max() <= 0.5 + 1e-9


def cubic(distance):
    """The weight of Keys' cubic convolution with a = -0.75, which OpenCV uses."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(("size", "enlarged"), [((32, 32), (44, 58)), ((60, 50), (66, 86)), ((40, 90), (77, 99))])
def test_the_package_enlarges_by_a_tenth_more_than_it_takes_to_cover_the_image(tmp_path, size, enlarged):
    picture = save(tmp_path, "a.png", 40, 52).double()
    if size == (32, 32):
        assert textures(tmp_path, "imagenet_c", 1, *size, CPU).sizes.tolist() == [[40, 52]]
    found = textures(tmp_path, "imagecorruptions", 1, *size, CPU)
    assert found.sizes.tolist() == [list(enlarged)]
    for row, column in [(0, 0), (enlarged[0] - 1, enlarged[1] - 1), (20, 31), (43, 3)]:
        expected = torch.zeros(3, dtype=torch.float64)
        down, right = (
            (at + 0.5) * old / new - 0.5 for at, old, new in zip((row, column), (40, 52), enlarged, strict=True)
        )
        for y in range(math.floor(down) - 1, math.floor(down) + 3):
            for x in range(math.floor(right) - 1, math.floor(right) + 3):
                weight = cubic(down - y) * cubic(right - x)
                expected += weight * picture[:, min(max(y, 0), 39), min(max(x, 0), 51)]
        assert (found.levels[0, :, row, column] - expected.clamp(0, 255)).abs().max() <= 0.5 + 1e-6
