"""CIFAR-10-P and CIFAR-100-P, from their files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from robust_bench.benchmarks.cifar import (
    CLEAN,
    IMAGES,
    Classes,
    array_labels,
    array_part,
    check_shape,
    cifar_as_stored,
)
from robust_bench.benchmarks.entry import Entry, Options, is_there, locate
from robust_bench.benchmarks.flip_scores import flip_scores, mean_flip_probability
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions.flips import Flips
from robust_bench.corruptions.sequences import PRESETS, is_noise
from robust_bench.datasets.arrays import Arrays
from robust_bench.datasets.cifar import FOLDERS, SIDE, cifar
from robust_bench.part import Benchmark

PERTURBATIONS = PRESETS["cifar"].reported
"""The ten of the published evaluation (hendrycks/robustness, `ImageNet-P/cifar-p-eval.py`), which has spatter where
ImageNet-P has snow."""

EXTRA_PERTURBATIONS = PRESETS["cifar"].validation
"""Four more, which are not part of the mean."""


def _entry(classes: Classes, where: str) -> Entry:
    name = f"cifar-{classes}-p"

    def build(options: Options) -> Benchmark:
        treatment = cifar_as_stored(options)
        parts = []
        with opening(entry, options) as root:
            labels = _labels(root, classes, options)
            for perturbation in (*PERTURBATIONS, *EXTRA_PERTURBATIONS):
                file = root / f"{perturbation}.npy"
                if perturbation in EXTRA_PERTURBATIONS and not file.is_file():
                    continue
                check_shape(file, (IMAGES, None, SIDE, SIDE, 3))
                data = Arrays(file, labels, preprocess=treatment)
                condition = Flips(perturbation=perturbation, noise=is_noise(perturbation))
                parts.append(array_part(f"{name}/{perturbation}", name, classes, data, root, condition=condition))
        return Benchmark(name=name, parts=tuple(parts), scores=entry.scores)

    entry = Entry(
        name=name,
        about=f"sequences of CIFAR-{classes}'s test images that change a little: mean flip probability, T5D",
        source="Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261",
        build=build,
        scores=partial(
            flip_scores,
            benchmark=name,
            perturbations=PERTURBATIONS,
            mean=mean_flip_probability,
        ),
        layout=(
            f"Expected DIR/{name.upper()}/<perturbation>.npy, files of uint8 (10000, frames, 32, 32, 3) in the order "
            f"of the test images, for {', '.join(PERTURBATIONS)}; {', '.join(EXTRA_PERTURBATIONS)} may be missing. "
            f"Labels come from labels.npy there, or from DIR/{FOLDERS[classes]} beside it. {where}"
        ),
        folders=(name.upper(), name),
        fits=lambda path: (path / "tilt.npy").is_file() and ("100" in path.name) == (classes == 100),
    )
    return entry


def _labels(root: Path, classes: Classes, options: Options) -> Sequence[int]:
    if (root / "labels.npy").is_file():
        return array_labels(root / "labels.npy", classes, IMAGES)
    if not is_there(CLEAN[classes], options.data):
        raise FileNotFoundError(
            f"no labels of the sequences in {root}: neither labels.npy there, nor {FOLDERS[classes]} in {options.data}"
        )
    return cifar(locate(CLEAN[classes], options.data), classes).labels


ENTRIES = (
    _entry(10, "The archive is at https://zenodo.org/record/2535967"),
    _entry(
        100,
        "This set was never published: it is made from the test images by ImageNet-P/create_p/make_cifar_p.py of "
        "https://github.com/hendrycks/robustness",
    ),
)
