"""ImageNet-P, from its video files."""

from functools import partial
from pathlib import Path

from robust_bench.benchmarks.data_settings import as_stored, data_settings
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.flip_scores import flip_scores, mean_flip_probability
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions.flips import Flips
from robust_bench.corruptions.sequences import SEQUENCES, VALIDATION_SEQUENCES, is_noise
from robust_bench.datasets.imagenet_classes import IMAGENET
from robust_bench.datasets.video import Videos, pyav
from robust_bench.metrics import mean_flip_rate
from robust_bench.part import Benchmark, Part
from robust_bench.preprocess import AsStored

PERTURBATIONS = SEQUENCES
"""The ten that the mean flip rate is over, in the published order."""

EXTRA_PERTURBATIONS = VALIDATION_SEQUENCES
"""Four more, for choosing hyper-parameters: they are not part of the mean."""

GROUPS = ("", "noise", "blur", "weather", "digital", "validation", "extra")
"""Folders in which the perturbations may lie, as they do when the archives are unpacked; "" is none."""

NAME = "imagenet-p"


def _part(name: str, perturbation: str, difficulty: int, root: Path, folder: Path, treatment: AsStored) -> Part:
    return Part(
        name=f"{name}/{perturbation}",
        benchmark=NAME,
        data=Videos(folder, IMAGENET.labels(folder), preprocess=treatment),
        conditions=(Flips(perturbation=perturbation, noise=is_noise(perturbation), difficulty=difficulty),),
        num_classes=IMAGENET.count,
        settings=data_settings(
            dataset="ImageNet-P",
            path=root,
            classes=IMAGENET.count,
            images_expected=50_000,
            treatment=treatment,
            answer=f"among all {IMAGENET.count} classes",
            decoder=f"PyAV {pyav().__version__}",
        ),
    )


def _folder(root: Path, perturbation: str, difficulty: int) -> Path | None:
    """The folder of a perturbation, of which noises have one per difficulty; None for an extra one that is missing.

    Raises:
        FileNotFoundError: if one of the ten is missing.
    """
    name = f"{perturbation}_{difficulty}" if difficulty > 1 and is_noise(perturbation) else perturbation
    for group in GROUPS:
        if (root / group / name).is_dir():
            return root / group / name
    if perturbation in EXTRA_PERTURBATIONS:
        return None
    raise FileNotFoundError(f"{name} is missing in {root}: no folder {root / name}")


def _entry(difficulty: int) -> Entry:
    """The sequences at a difficulty: AlexNet's flip probabilities, and so the flip rate, are known for 1 alone."""
    name = NAME if difficulty == 1 else f"{NAME}-{difficulty}"

    def build(options: Options) -> Benchmark:
        treatment = as_stored(options)
        parts = []
        with opening(entry, options) as root:
            for perturbation in (*PERTURBATIONS, *EXTRA_PERTURBATIONS):
                folder = _folder(root, perturbation, difficulty)
                if folder is not None:
                    parts.append(_part(name, perturbation, difficulty, root, folder, treatment))
        return Benchmark(name=name, parts=tuple(parts), scores=entry.scores)

    entry = Entry(
        name=name,
        about="sequences of ImageNet's validation images that change a little: flip probability, mFR, T5D"
        if difficulty == 1
        else f"the same with stronger noises, and others over {difficulty} frames: flip probability, T5D",
        source="Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261",
        build=build,
        scores=partial(
            flip_scores,
            benchmark=name,
            perturbations=PERTURBATIONS,
            mean=mean_flip_rate if difficulty == 1 else mean_flip_probability,
        ),
        layout=(
            "Expected DIR/imagenet-p/<perturbation>/<wnid>/*.mp4 of 224 x 224 pixels, for "
            f"{', '.join(PERTURBATIONS)}; {', '.join(EXTRA_PERTURBATIONS)} may be missing"
            + (f". The folders of noises end in _{difficulty}" if difficulty > 1 else "")
            + ". The perturbations may lie in folders noise, blur, weather, digital, validation, as the archives are "
            "unpacked. They are at https://zenodo.org/record/3565846"
        ),
        folders=(NAME, "ImageNet-P"),
        fits=_fits,
    )
    return entry


def _fits(path: Path) -> bool:
    return any((path / group / "tilt" / "n01440764").is_dir() for group in GROUPS)


ENTRIES = tuple(_entry(difficulty) for difficulty in (1, 2, 3))
