import numpy as np
import pytest
import torch
from PIL import Image
from robust_viz.images import load_image


def save(path, pixels, mode=None, **options):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode).save(path, **options)
    return path


def test_an_image_of_the_right_size_comes_back_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = load_image(save(tmp_path / "a.png", pixels), (6, 8))
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


def test_the_middle_is_cut_out(tmp_path):
    pixels = np.zeros((4, 12, 3))
    pixels[:, 4:8] = 255
    assert torch.equal(load_image(save(tmp_path / "a.png", pixels), (4, 4)), torch.ones(3, 4, 4))


def test_it_is_resized_turned_to_grey_and_turned_upright(tmp_path):
    pixels = np.zeros((8, 8, 3))
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    image = load_image(save(tmp_path / "a.png", pixels, exif=exif), (4, 4), channels=1)
    assert image.shape == (1, 4, 4)
    assert image[0, 0].max() < 0.1
    assert image[0, 3].min() > 0.9


def test_transparency_lies_on_white(tmp_path):
    pixels = np.zeros((4, 4, 4))
    assert torch.equal(load_image(save(tmp_path / "a.png", pixels), (4, 4)), torch.ones(3, 4, 4))


def test_mistakes_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image at .*none.png"):
        load_image(tmp_path / "none.png", (4, 4))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text.png cannot be read as an image"):
        load_image(tmp_path / "text.png", (4, 4))
    with pytest.raises(ValueError, match="the model takes 5"):
        load_image(tmp_path / "text.png", (4, 4), channels=5)
