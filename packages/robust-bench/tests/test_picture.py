"""From image files to tensors: kinds of pixels, orientation, damage."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from robust_bench.datasets.picture import as_rgb, is_picture, read_picture
from robust_bench.preprocess import AsStored, Preprocess

SIDE = 16
AS_STORED = AsStored(stored=SIDE)


def stored(picture, kind="PNG", **settings):
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    file.seek(0)
    return file


def read(file, transform=AS_STORED):
    return read_picture(file, name="here.png", transform=transform)


def bytes_of(image):
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_pixels_are_those_of_the_file(pixels, kind):
    image = read(stored(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_grey_becomes_three_equal_channels(pixels):
    grey = pixels[..., 0]
    assert (bytes_of(read(stored(Image.fromarray(grey)))) == grey[..., None]).all()


def test_transparency_is_left_out(pixels):
    alpha = Image.fromarray(pixels[..., 1])
    colours = Image.fromarray(pixels)
    colours.putalpha(alpha)
    assert (bytes_of(read(stored(colours))) == pixels).all()
    grey = Image.merge("LA", (Image.fromarray(pixels[..., 0]), alpha))
    assert (bytes_of(read(stored(grey))) == pixels[..., :1]).all()


def test_a_palette_gives_its_colours():
    picture = Image.new("P", (SIDE, SIDE), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert (bytes_of(read(stored(picture))) == [10, 20, 30]).all()


def test_cmyk_is_converted_by_its_definition():
    """With c, m, y, k in [0, 1], red is (1 - c) (1 - k), to a grey level or two, which JPEG costs."""
    picture = Image.new("CMYK", (SIDE, SIDE), (255, 0, 102, 51))
    expected = [255 * (1 - c) * 0.8 for c in (1.0, 0.0, 0.4)]
    found = bytes_of(read(stored(picture, "JPEG", quality=100))).reshape(-1, 3).astype(float)
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind):
    """The nearest of the 8-bit values, of which v stands for 257 v of 65535."""
    values = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
    values[0, :4] = (0, 65535, 128, 129)
    found = bytes_of(read(stored(Image.fromarray(values), kind)))[..., 0].astype(float)
    assert np.abs(found - values / 257).max() < 0.5
    assert found[0, :4].tolist() == [0, 255, 0, 1]


def test_16_bits_of_portable_graymaps_are_scaled_to_8():
    values = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    file = io.BytesIO(b"P5 16 16 65535\n" + (values * 257).byteswap().tobytes())
    assert (bytes_of(read(file))[..., 0] == values).all()


@pytest.mark.parametrize(("kind", "what"), [(np.int32, "integers of 32 bits"), (np.float32, "floats")])
def test_pixels_without_a_known_white_are_refused(kind, what):
    with pytest.raises(ValueError, match=rf"cannot read the image here\.png: its pixels are {what}"):
        read(stored(Image.fromarray(np.ones((SIDE, SIDE), dtype=kind)), "TIFF"))


def test_the_cameras_orientation_is_left_aside():
    """A picture taken on its side stays on its side, as torchvision's and timm's evaluation has it."""
    picture = Image.new("RGB", (SIDE, SIDE))
    ImageDraw.Draw(picture).rectangle((0, 0, SIDE, 3), fill=(255, 255, 255))
    turned = Image.Exif()
    turned[0x0112] = 6
    file = stored(picture, "JPEG", quality=100, exif=turned)
    with Image.open(file) as again:
        assert again.getexif()[0x0112] == 6
    image = read(file)
    assert image[:, 1].min() > 0.9
    assert image[:, 8].max() < 0.1


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, before it gives up on TIFF
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_an_error_with_its_name_wherever_it_is_cut(pixels, kind):
    content = stored(Image.fromarray(pixels), kind).getvalue()
    for length in range(0, len(content) * 3 // 4, 23):
        with pytest.raises(ValueError, match=r"cannot read the image here\.png"):
            read(io.BytesIO(content[:length]))


def test_an_image_that_would_fill_the_memory_is_an_error_with_its_name(pixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"cannot read the image here\.png: Image size \(256 pixels\)"):
        read(stored(Image.fromarray(pixels)))


def test_what_the_treatment_refuses_is_an_error_with_the_name(pixels):
    with pytest.raises(ValueError, match=r"cannot read the image here\.png: expected 8 x 8 pixels"):
        read(stored(Image.fromarray(pixels)), AsStored(stored=8))


def test_float_tensors_of_a_treatment_stay_as_they_are(pixels):
    found = read(stored(Image.fromarray(pixels)), lambda picture: torch.full((1, 2, 2), 3.5))
    assert torch.equal(found, torch.full((1, 2, 2), 3.5))


def test_a_converted_picture_is_treated_like_one_that_was_8_bit(pixels):
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    transform = Preprocess(size=8).transform()
    assert torch.equal(transform(as_rgb(wide)), transform(Image.fromarray(pixels[..., 0]).convert("RGB")))


def test_names_tell_images_from_other_files():
    assert all(map(is_picture, ("a.jpg", "b.JPEG", "c.d.webp", "e.tif")))
    assert not any(map(is_picture, ("Thumbs.db", "labels.txt", "jpg", ".hidden.png", "a.png.part")))
