"""Which sequences there are."""

import dataclasses

from robust_bench.corruptions.sequences.blur import BLURS
from robust_bench.corruptions.sequences.geometry import GEOMETRY
from robust_bench.corruptions.sequences.noise import NOISES
from robust_bench.corruptions.sequences.perturbation import Perturbation
from robust_bench.corruptions.sequences.presets import DIFFICULTIES, PRESETS, SequencePreset, Steps
from robust_bench.corruptions.sequences.weather import WEATHERS

_ALL = {each.name: each for each in (*NOISES, *BLURS, *WEATHERS, *GEOMETRY)}


def find(name: str) -> Perturbation:
    """Look up a kind of sequence.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _ALL:
        raise ValueError(f"unknown sequence {name!r}: choose from {', '.join(_ALL)}")
    return _ALL[name]


def preset_of(preset: str) -> SequencePreset:
    """Look up a table of constants.

    Raises:
        ValueError: if the name is unknown.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r} of sequences: choose from {', '.join(PRESETS)}")
    return PRESETS[preset]


def steps_of(name: str, preset: str, difficulty: int = 1) -> Steps:
    """Look up what a sequence is made with; the constant of a noise is that of the difficulty.

    Raises:
        ValueError: if a name is unknown, or the difficulty is not 1, 2 or 3.
    """
    perturbation = find(name)
    steps = preset_of(preset).steps[name]
    if type(difficulty) is not int or difficulty not in DIFFICULTIES:  # 2.0 and True are equal to some
        raise ValueError(f"difficulty must be one of {', '.join(map(str, DIFFICULTIES))}, got {difficulty!r}")
    return dataclasses.replace(steps, constant=steps.constant[difficulty - 1]) if perturbation.noise else steps


def is_noise(name: str) -> bool:
    """Tell whether every frame but the clean first one has noise of its own.

    Raises:
        ValueError: if the name is unknown.
    """
    return find(name).noise


def count(name: str, preset: str = "imagenet") -> int:
    """Tell how many frames a sequence has.

    Raises:
        ValueError: if a name is unknown.

    Examples:
        >>> count("tilt"), count("translate"), count("translate", "cifar"), count("motion_blur", "cifar")
        (31, 41, 16, 21)
    """
    return len(steps_of(name, preset).values)
