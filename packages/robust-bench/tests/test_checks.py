"""What the corruptions refuse, and what they warn of."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, Draws, SizeWarning, apply, corrupt, sample
from robust_bench.corruptions.table import find

NOTHING = Draws(count=1, fields={})
GREY = torch.full((5, 3, 32, 32), 100, dtype=torch.uint8)


def test_a_preset_that_does_not_fit_warns(pictures):
    with pytest.warns(SizeWarning, match="'imagenet' were made for 224 pixels.*32 x 32"):
        corrupt(GREY, "contrast")
    with pytest.warns(SizeWarning, match="'cifar'"):
        corrupt(pictures(size=(64, 64)), "contrast", preset="cifar")


@pytest.mark.parametrize(
    ("preset", "size"), [("cifar", (8, 8)), ("cifar", (48, 48)), ("imagenet", (160, 300)), ("tiny_imagenet", (64, 64))]
)
def test_a_preset_that_fits_is_quiet(pictures, preset, size):
    corrupt(pictures(size=size), "contrast", preset=preset)  # a warning would be an error here


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "haze"}, "unknown corruption 'haze': choose from gaussian_noise"),
        ({"preset": "coco"}, "unknown preset"),
        ({"variant": "mine"}, "unknown variant"),
        ({"variant": "imagecorruptions"}, "preset 'imagenet' only"),
        ({"precision": "half"}, "precision"),
        ({"severity": 0}, "1..5"),
        ({"severity": 6}, "1..5"),
        ({"severity": 2.5}, "from 1 to 5"),
        ({"severity": True}, "from 1 to 5"),
        ({"severity": torch.tensor([1, 2])}, "one per image"),
        ({"severity": torch.ones(5)}, "one per image"),
        ({"severity": torch.tensor([1, 2, 3, 4, 6])}, "1..5"),
        ({"ids": torch.tensor([1, 2])}, "one per image"),
        ({"images": GREY / 255}, "takes uint8"),
        ({"images": GREY.int()}, "takes uint8"),
        ({"images": torch.cat([GREY, GREY[:, :1]], dim=1)}, "alpha"),
        ({"images": GREY[0]}, "must have the shape"),
        ({"images": torch.zeros(1, 3, 0, 4, dtype=torch.uint8)}, "must have the shape"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_input_is_an_error_that_says_what_is_wrong(changes, word):
    arguments = {"images": GREY, "name": "contrast", "preset": "cifar"} | changes
    with pytest.raises(ValueError, match=word):
        corrupt(arguments.pop("images"), arguments.pop("name"), **arguments)


@pytest.mark.parametrize("name", [name for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS) if find(name).smallest > 1])
def test_images_that_are_too_small_are_refused(name):
    small, word = GREY[..., :31], f"{name} needs images of 32 pixels a side or more, got 32 x 31: .* contrast"
    with pytest.raises(ValueError, match=word):
        corrupt(small, name, preset="cifar")
    with pytest.raises(ValueError, match=word):
        sample(name, 3, small.shape, random=ImageRandom(0), preset="cifar")
    with pytest.raises(ValueError, match=word):
        apply(name, small, 3, Draws(count=5, fields={}), preset="cifar")


def test_arrays_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="torch tensor"):
        corrupt(GREY.numpy(), "contrast", preset="cifar")


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (torch.full((1, 3, 32, 32), 1.5), r"\[0, 1\], got \[1.5, 1.5\]"),
        (torch.full((1, 3, 32, 32), float("nan")), r"\[0, 1\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "uint8, or floats"),
    ],
)
def test_apply_refuses_what_is_no_image(images, word):
    with pytest.raises(ValueError, match=word):
        apply("contrast", images, 3, NOTHING, preset="cifar")


def test_draws_that_do_not_fit_are_refused():
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match="one set of draws per image"):
        apply("gaussian_noise", images, 3, NOTHING, preset="cifar")
    with pytest.raises(ValueError, match="needs draws named 'normal'"):
        apply("gaussian_noise", images, 3, Draws(count=2, fields={}), preset="cifar")
    wrong = Draws(count=2, fields={"normal": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match="shape"):
        apply("gaussian_noise", images, 3, wrong, preset="cifar")
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        sample("gaussian_noise", 3, (3, 32, 32), random=ImageRandom(0))
