"""Random numbers of repetitions."""

from robust_attacks import ImageRandom

_STRIDE = 1_000_003


def reseeded(random: ImageRandom, repetition: int) -> ImageRandom:
    """The streams of the same images for a repetition, counted from 0; the first has those that are given.

    Examples:
        >>> import torch
        >>> reseeded(ImageRandom(7, torch.arange(2)), 0) == ImageRandom(7, torch.arange(2))
        True
    """
    return ImageRandom(random.seed + _STRIDE * repetition, random.ids)
