"""The laws that every perturbation sequence keeps, and the arguments that are refused."""

import itertools
import sys

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.conditions import Flips
from robust_bench.corruptions import SizeWarning
from robust_bench.corruptions.sequences import (
    PRESETS,
    REPORTED,
    SEQUENCES,
    VALIDATION_SEQUENCES,
    apply,
    count,
    frames,
    is_noise,
    sample,
    sequence,
)
from robust_bench.metrics import ALEXNET_FLIP_PROBABILITIES

NAMES = (*SEQUENCES, *VALIDATION_SEQUENCES)
RANDOM = ("gaussian_noise", "shot_noise", "speckle_noise", "snow", "spatter")


@pytest.fixture
def images(pictures):
    return pictures(count=3)


def whole(pictures, count=2, size=(230, 261)):
    return pictures(count=count, size=size)


@pytest.mark.parametrize("name", NAMES)
class TestLaws:
    def test_a_batch_gives_the_bytes_of_its_images(self, images, name):
        together = sequence(images, name, "cifar", seed=3)
        assert together.dtype == torch.uint8
        assert together.shape == (3, count(name, "cifar"), 3, 32, 32)
        order = torch.tensor([2, 0])
        assert torch.equal(sequence(images[order], name, "cifar", seed=3, ids=order), together[order])
        alone = sequence(images[1:2], name, "cifar", seed=3, ids=torch.tensor([1]))
        assert torch.equal(alone, together[1:2])

    def test_chunks_do_not_matter(self, images, name, monkeypatch):
        together = sequence(images, name, "cifar")
        monkeypatch.setattr(sys.modules["robust_bench.corruptions.corrupt"], "_CHUNK", 1)
        assert torch.equal(sequence(images, name, "cifar"), together)

    def test_frames_are_sample_and_apply(self, images, name):
        random = ImageRandom(9, torch.tensor([7, 0, 2]))
        made = apply(
            name,
            images,
            lambda frame: sample(name, frame, images.shape, random=random, preset="cifar", difficulty=2),
            preset="cifar",
            difficulty=2,
        )
        expected = frames(images, name, "cifar", 2, seed=9, ids=random.ids)
        assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))

    def test_nothing_that_was_given_changes(self, images, name):
        copy, state = images.clone(), torch.get_rng_state()
        given, kept = [], []
        with torch.autocast("cpu"):
            for frame in frames(images, name, "cifar"):
                given.append(frame)
                kept.append(frame.clone())
        assert torch.equal(images, copy)
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
        given[0].zero_()
        assert torch.equal(images, copy)

    def test_autocast_changes_nothing_and_is_left_as_it_was(self, images, name):
        plain = sequence(images, name, "cifar")
        with torch.autocast("cpu"):
            stream = frames(images, name, "cifar")
            first = next(stream)
            assert torch.is_autocast_enabled("cpu")
            assert torch.equal(torch.stack([first, *stream], dim=1), plain)

    def test_grey_is_the_first_of_three_equal_channels(self, pictures, name):
        grey = pictures(count=2, channels=1)
        colour = sequence(grey.expand(-1, 3, -1, -1), name, "cifar")
        assert torch.equal(sequence(grey, name, "cifar"), colour[:, :, :1])

    def test_an_empty_batch_has_empty_frames(self, name):
        for preset, size in (("cifar", (32, 32)), ("imagenet", (256, 300))):
            found = sequence(torch.zeros(0, 3, *size, dtype=torch.uint8), name, preset)
            side = 32 if preset == "cifar" else 224
            assert found.shape == (0, count(name, preset), 3, side, side)

    def test_whole_images_give_frames_of_their_centre(self, pictures, name):
        """The frames of the centre alone are the same, unless something may move in from outside."""
        pair = whole(pictures)
        found = list(itertools.islice(frames(pair, name), 4))
        assert all(frame.shape == (2, 3, 224, 224) for frame in found)
        centre = pair[:, :, 3:227, 18:242]  # 18.5 columns are left over, which round to 18
        alone = list(itertools.islice(frames(centre, name), 4))
        moves = name in ("translate", "rotate", "tilt", "scale", "shear")
        assert torch.equal(found[3], alone[3]) != (moves or name == "zoom_blur")
        one = list(itertools.islice(frames(pair[1:], name, ids=torch.tensor([1])), 4))
        assert all(torch.equal(frame[1:], other) for frame, other in zip(found, one, strict=True))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("gaussian_noise", 0),
        ("shot_noise", 0),
        ("speckle_noise", 0),
        ("zoom_blur", 0),
        ("brightness", 15),
        ("translate", None),
        ("rotate", 15),
        ("shear", 15),
        ("scale", None),
    ],
)
def test_one_frame_is_the_clean_image(pictures, preset, name, frame):
    if frame is None:
        frame = {"translate": {"imagenet": 20, "cifar": 7}, "scale": {"imagenet": 24, "cifar": 15}}[name][preset]
    images = pictures() if preset == "cifar" else whole(pictures)
    clean = images if preset == "cifar" else images[:, :, 3:227, 18:242]
    found = list(itertools.islice(frames(images, name, preset), frame + 2))
    assert torch.equal(found[frame], clean)
    assert not torch.equal(found[frame + 1], clean)


@pytest.mark.parametrize("name", NAMES)
def test_frames_have_what_is_random_from_the_seed_and_the_image(images, name):
    same = images[:1].expand(3, -1, -1, -1)
    found = sequence(same, name, "cifar", ids=torch.tensor([5, 6, 5]))
    assert torch.equal(found[0], found[2])
    other = sequence(same, name, "cifar", seed=1, ids=torch.tensor([5, 6, 5]))
    differ = name in RANDOM
    assert torch.equal(found[0], found[1]) != differ
    assert torch.equal(found, other) != differ


@pytest.mark.parametrize("name", NAMES)
def test_only_noises_depend_on_the_difficulty(images, name):
    easy, hard = (sequence(images, name, "cifar", difficulty) for difficulty in (1, 3))
    assert torch.equal(easy, hard) != is_noise(name)
    if is_noise(name):
        apart = [(each[:, 1:].int() - images[:, None].int()).abs().double().mean() for each in (easy, hard)]
        assert apart[1] > 1.5 * apart[0]


def test_noises_are_told_by_look_up():
    noises = ["gaussian_noise", "shot_noise", "speckle_noise"]
    assert [name for name in NAMES if is_noise(name)] == noises
    assert [name for name in NAMES if Flips.of_generated(name, "cifar").noise] == noises
    with pytest.raises(ValueError, match="unknown sequence 'impulse_noise'"):
        is_noise("impulse_noise")


def test_the_ten_are_those_that_are_published():
    assert set(SEQUENCES) == set(ALEXNET_FLIP_PROBABILITIES)
    assert REPORTED["imagenet"] == SEQUENCES
    assert set(REPORTED["cifar"]) == set(SEQUENCES) - {"snow"} | {"spatter"}
    for preset in PRESETS.values():
        assert set(preset.reported) | set(preset.validation) == set(NAMES) == set(preset.steps)
        assert not set(preset.reported) & set(preset.validation)


def test_numbers_of_frames_are_those_that_are_published():
    counts = {preset: {name: count(name, preset) for name in NAMES} for preset in PRESETS}
    assert counts["imagenet"] == dict.fromkeys(NAMES, 31) | {"translate": 41}
    assert counts["cifar"] == dict.fromkeys(NAMES, 31) | {"translate": 16, "motion_blur": 21}


def test_frames_are_made_one_after_another(images):
    asked = []

    def draws(frame):
        asked.append(frame)
        return sample("gaussian_noise", frame, images.shape, random=ImageRandom(0), preset="cifar")

    stream = apply("gaussian_noise", images, draws, preset="cifar")
    next(stream)
    assert asked == []  # the clean image
    next(stream)
    next(stream)
    assert asked == [1, 2]


@pytest.mark.parametrize("name", ["gaussian_noise", "rotate"])
def test_mistakes_are_told_at_once(name):
    good = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="unknown sequence 'fog': choose from gaussian_noise, shot_noise"):
        frames(good, "fog", "cifar")
    with pytest.raises(ValueError, match="unknown preset 'tiny_imagenet' of sequences: choose from imagenet, cifar"):
        frames(good, name, "tiny_imagenet")
    for difficulty in (0, 4, True, 1.5, 2.0):
        with pytest.raises(ValueError, match="difficulty must be one of 1, 2, 3, got"):
            frames(good, name, "cifar", difficulty)
    with pytest.raises(ValueError, match=r"takes uint8 images, got torch\.float32"):
        frames(good / 255, name, "cifar")
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\)"):
        frames(good[0], name, "cifar")
    with pytest.raises(TypeError, match="torch tensor"):
        frames(good.numpy(), name, "cifar")
    with pytest.raises(ValueError, match="'imagenet' need images of 224 pixels a side or more, got 32 x 32: resize"):
        frames(good, name)
    with pytest.raises(ValueError, match="'cifar' need images of 32 pixels a side or more, got 8 x 8"):
        frames(good[:, :, :8, :8], name, "cifar")
    with pytest.raises(ValueError, match="ids must be int64"):
        frames(good, name, "cifar", ids=torch.tensor([1]))
    with pytest.raises(ValueError, match="unknown sequence"):
        count("fog")


def test_draws_that_do_not_fit_are_refused(images):
    random = ImageRandom(0)
    with pytest.raises(ValueError, match=r"has the frames 0\.\.30 with preset 'cifar', got 31"):
        sample("gaussian_noise", 31, images.shape, random=random, preset="cifar")
    with pytest.raises(ValueError, match=r"shape must be \(N, C, H, W\)"):
        sample("gaussian_noise", 1, (32, 32), random=random, preset="cifar")
    few = sample("spatter", 0, (2, 3, 32, 32), random=random, preset="cifar")
    with pytest.raises(ValueError, match="one set of draws per image is needed, got 2 for 3 images"):
        next(apply("spatter", images, lambda _: few, preset="cifar"))
    empty = sample("rotate", 0, images.shape, random=random, preset="cifar")
    assert not empty.fields
    with pytest.raises(ValueError, match="needs draws named 'normal'"):
        next(apply("snow", images, lambda _: empty, preset="cifar"))


def test_only_images_far_from_the_constants_warn():
    for size in ((256, 700), (384, 384)):
        next(frames(torch.zeros(1, 3, *size, dtype=torch.uint8), "brightness"))
    with pytest.warns(SizeWarning, match="made for images whose shorter side has 256 pixels .* these have 385 x 500"):
        frames(torch.zeros(1, 3, 385, 500, dtype=torch.uint8), "brightness")
    with pytest.warns(SizeWarning, match="32 pixels"):
        frames(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "brightness", "cifar")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
def test_cpu_and_gpu_agree(pictures, name, preset):
    images = pictures(count=5) if preset == "cifar" else whole(pictures)
    for frame, other in zip(frames(images.cuda(), name, preset), frames(images, name, preset), strict=True):
        assert frame.is_cuda
        difference = (frame.cpu().int() - other.int()).abs()
        assert (difference > 1).double().mean() <= (1e-3 if name in ("snow", "spatter") else 0)
