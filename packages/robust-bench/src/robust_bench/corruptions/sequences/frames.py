"""Frames of perturbation sequences, one after another, with draws that belong to the image."""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench.corruptions.checks import SizeWarning, check_ids, check_images, check_levels
from robust_bench.corruptions.corrupt import images_at_once
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.sequences.perturbation import Window
from robust_bench.corruptions.sequences.presets import Steps
from robust_bench.corruptions.sequences.table import find, preset_of, steps_of

_FAR = 1.5  # how many times larger than what the constants were made for images may be without a warning

ChunkDraw = Callable[[int, slice], Draws]
"""Gives the random numbers of a frame for some of the images."""


def frames(
    images: Tensor, name: str, preset: str = "imagenet", difficulty: int = 1, seed: int = 0, ids: Tensor | None = None
) -> Iterator[Tensor]:
    """Make the frames of a perturbation sequence; one frame of all images after another comes out, uint8 (N, C, h, w).

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261 (ImageNet-P), and the scripts published with it. Every random number is a function of the seed, the
    image's id, the sequence, the difficulty, the number of the frame and its purpose: batch size, order and device do
    not matter, and torch's global random state is not touched. Values are truncated to 8 bits, those of tilt rounded,
    as in the scripts.

    The published ImageNet-P are H.264 videos of such frames, so that equal pixels are impossible.

    Args:
        images: uint8 (N, 3, H, W), or (N, 1, H, W), which is treated as three equal channels of which one is kept. For
            "imagenet" whole images whose shorter side was resized to 256 (any from 224 on work): what moves, turns,
            tilts or scales acts on the whole image, and the centre of 224 x 224 is cut out of every frame. For "cifar"
            the 32 x 32 images themselves.
        name: one of `SEQUENCES` or `VALIDATION_SEQUENCES`.
        preset: whose constants: "imagenet" or "cifar". They are in pixels and never scaled.
        difficulty: 1, 2 or 3, how strong a noise is. The frames of others are the same at all difficulties, which there
            say how far apart frames are compared.
        seed: of the random draws.
        ids: int64 (N,), each image's number in its data set; None means 0..N-1.

    Raises:
        ValueError: at once, if a name, the difficulty, the shape, the type or the ids are not as said, or the images
            are too small.
        TypeError: if `images` is not a tensor.

    Examples:
        >>> images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        >>> [frame[0, 0, 0, 0].item() for frame in frames(images, "brightness", preset="cifar")][13:18]
        [92, 96, 100, 103, 107]
    """
    steps_of(name, preset, difficulty)
    check_images(images)
    check_levels(images)
    random = ImageRandom(seed, check_ids(ids, len(images)))

    @functools.lru_cache(maxsize=1)  # the chunks of a batch are at the same frame
    def keys(frame: int, purpose: str) -> Tensor:
        return random.keys(_use(name, difficulty, frame, purpose)).to(images.device, non_blocking=True)

    def draw(frame: int, chunk: slice) -> Draws:
        return _draws(name, frame, _cut(images, preset)[chunk].shape, lambda purpose: keys(frame, purpose)[chunk])

    return _stream(images, name, preset, difficulty, draw)


def sequence(
    images: Tensor, name: str, preset: str = "imagenet", difficulty: int = 1, seed: int = 0, ids: Tensor | None = None
) -> Tensor:
    """Stack the frames of `frames`, whose arguments these are: uint8 (N, T, C, h, w).

    Examples:
        >>> sequence(torch.zeros(2, 3, 224, 300, dtype=torch.uint8), "translate").shape
        torch.Size([2, 41, 3, 224, 224])
    """
    return torch.stack(list(frames(images, name, preset, difficulty, seed, ids)), dim=1)


def sample(
    name: str,
    frame: int,
    shape: Sequence[int],
    *,
    random: ImageRandom,
    preset: str = "imagenet",
    difficulty: int = 1,
    device: torch.device | str | None = None,
) -> Draws:
    """Draw the random numbers that `apply` needs for one frame of images of `shape` (N, C, H, W), on `device`.

    A noise needs some for every frame but frame 0, which is the clean image; snow and spatter need some for frame 0,
    which last for the sequence; the others need none. They are of the size of the frame, not of the whole image.

    Raises:
        ValueError: if a name, the difficulty, the frame or the shape is not as said.
    """
    length = len(steps_of(name, preset, difficulty).values)
    if not 0 <= frame < length:
        raise ValueError(f"{name} has the frames 0..{length - 1} with preset {preset!r}, got {frame}")
    if len(shape) != 4:
        raise ValueError(f"shape must be (N, C, H, W), got {tuple(shape)}")
    random = ImageRandom(random.seed, check_ids(random.ids, shape[0]))
    _, _, height, width = _window(shape[2], shape[3], preset)
    place = torch.device("cpu" if device is None else device)
    return _draws(
        name,
        frame,
        (shape[0], shape[1], height, width),
        lambda purpose: random.keys(_use(name, difficulty, frame, purpose)).to(place, non_blocking=True),
    )


def apply(
    name: str,
    images: Tensor,
    draws: Callable[[int], Draws],
    *,
    preset: str = "imagenet",
    difficulty: int = 1,
) -> Iterator[Tensor]:
    """Make the frames of a sequence with given draws; they depend on the arguments alone.

    Args:
        name: one of `SEQUENCES` or `VALIDATION_SEQUENCES`.
        images: as `frames` takes them.
        draws: gives the draws of a frame, by its number, for all images: those of `sample`, or made elsewhere. It is
            asked only for frames that have some.
        preset: see `frames`.
        difficulty: see `frames`.

    Raises:
        ValueError: at once, as `frames`; and where the draws do not fit, when a frame is made of them.
        TypeError: if `images` is not a tensor.
    """
    steps_of(name, preset, difficulty)
    check_images(images)
    check_levels(images)
    once = functools.lru_cache(maxsize=1)(draws)

    def draw(frame: int, chunk: slice) -> Draws:
        given = once(frame)
        if len(given) != len(images):
            raise ValueError(f"one set of draws per image is needed, got {len(given)} for {len(images)} images")
        return given[chunk]

    return _stream(images, name, preset, difficulty, draw)


def _stream(images: Tensor, name: str, preset: str, difficulty: int, draw: ChunkDraw) -> Iterator[Tensor]:
    """Check the sizes at once, and then make frame after frame."""
    perturbation, steps = find(name), steps_of(name, preset, difficulty)
    window = _window(images.shape[2], images.shape[3], preset)
    _warn_of_size(images.shape[2], images.shape[3], preset)
    seen = images if perturbation.whole else _cut(images, preset)
    if not len(images):
        return (seen.new_empty(0, images.shape[1], *window[2:]) for _ in steps.values)
    return _in_step(seen, perturbation.make, window, steps, draw)


def _in_step(
    images: Tensor, make: Callable[..., Iterator[Tensor]], window: Window, steps: Steps, draw: ChunkDraw
) -> Iterator[Tensor]:
    """Make the frames chunk by chunk, all chunks in step, in their own type even under autocast."""
    size = images_at_once(images)
    chunks = [slice(start, start + size) for start in range(0, len(images), size)]
    makers = [
        make(images[chunk].contiguous(), window, steps, functools.partial(_of_chunk, draw, chunk)) for chunk in chunks
    ]
    for _ in steps.values:
        with torch.autocast(images.device.type, enabled=False):
            parts = [next(maker) for maker in makers]
        yield parts[0] if len(parts) == 1 else torch.cat(parts)


def _of_chunk(draw: ChunkDraw, chunk: slice, frame: int) -> Draws:
    return draw(frame, chunk)


def _use(name: str, difficulty: int, frame: int, purpose: str) -> str:
    """Name what random numbers are for; those of a sequence that is no noise are the same at every difficulty."""
    strength = f"{difficulty}/" if find(name).noise else ""
    return f"sequence/{name}/{strength}{frame}/{purpose}"


def _draws(name: str, frame: int, shape: Sequence[int], key: Callable[[str], Tensor]) -> Draws:
    perturbation = find(name)
    count, channels, height, width = shape
    has_some = frame > 0 if perturbation.noise else frame == 0
    fields = perturbation.sample(key, (channels, height, width), None) if has_some else {}
    return Draws(count=count, fields=fields)


def _cut(images: Tensor, preset: str) -> Tensor:
    top, left, height, width = _window(images.shape[2], images.shape[3], preset)
    return images[:, :, top : top + height, left : left + width]


def _window(height: int, width: int, preset: str) -> Window:
    """The centre of an image that its frames show; where it lies half-way, it moves as torchvision's CenterCrop does.

    Raises:
        ValueError: if the image is too small.
    """
    known = preset_of(preset)
    if min(height, width) < known.smallest:
        raise ValueError(
            f"sequences with the preset {preset!r} need images of {known.smallest} pixels a side or more, got "
            f"{height} x {width}"
            + (": resize the shorter side to 256" if known.cut else ", for which there are no published constants")
        )
    if known.cut is None:
        return 0, 0, height, width
    return round((height - known.cut) / 2), round((width - known.cut) / 2), known.cut, known.cut


def _warn_of_size(height: int, width: int, preset: str) -> None:
    side = preset_of(preset).side
    if min(height, width) > _FAR * side:
        warnings.warn(
            f"the constants of preset {preset!r} were made for images whose shorter side has {side} pixels and are not "
            f"scaled, these have {height} x {width}: resize them",
            SizeWarning,
            stacklevel=4,
        )
