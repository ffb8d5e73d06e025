"""ImageNet-P and CIFAR-P without their files: the frames are made here, from the clean images."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from robust_bench.benchmarks.cifar import CLEAN, Classes, array_part, cifar_as_stored
from robust_bench.benchmarks.data_settings import as_stored, data_settings
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.flip_scores import flip_scores, mean_flip_probability
from robust_bench.benchmarks.imagenet import VALIDATION
from robust_bench.benchmarks.imagenet_p import NAME
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions import Condition, Flips, Perturbed
from robust_bench.corruptions.sequences import PRESETS
from robust_bench.datasets.cifar import SIDE, cifar
from robust_bench.datasets.imagenet_classes import IMAGENET
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.sequences import Sequences
from robust_bench.datasets.short_side import ShortSide
from robust_bench.metrics import mean_flip_rate
from robust_bench.part import Benchmark, Part

_SOURCE = "Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261"
_SEED = 0  # of all sequences, whatever that of an evaluation is: they are a data set


def _all(preset: str) -> tuple[str, ...]:
    return (*PRESETS[preset].reported, *PRESETS[preset].validation)


def _imagenet(difficulty: int) -> Entry:
    """The sequences of ImageNet's validation images at a difficulty.

    Whole images, their shorter side resized to 256 and nothing cut off, are moved and turned, as in the published
    script; they differ in size, so that sequences are made image by image, by the processes that read files.
    """
    name = f"{NAME}:generated" if difficulty == 1 else f"{NAME}-{difficulty}:generated"

    def build(options: Options) -> Benchmark:
        with opening(entry, options, "val") as root:
            labels = IMAGENET.labels(root)
        whole, treatment = ShortSide(side=PRESETS["imagenet"].side), as_stored(options)
        settings = data_settings(
            dataset="ImageNet-P, made from ImageNet-1k, validation",
            path=root,
            classes=IMAGENET.count,
            images_expected=50_000,
            treatment=treatment,
            answer=f"among all {IMAGENET.count} classes",
            variant="generated",
            whole_images=whole.settings["steps"],
        )
        images = LabelledFolder(root, labels, preprocess=whole)

        def part(perturbation: str) -> Part:
            made = Sequences(
                images,
                perturbation,
                preset="imagenet",
                difficulty=difficulty,
                seed=_SEED,
                preprocess=treatment,
            )
            return Part(
                name=f"{name}/{perturbation}",
                benchmark=name,
                data=made,
                conditions=(Flips.of_generated(perturbation, "imagenet", difficulty, _SEED),),
                num_classes=IMAGENET.count,
                settings=settings,
            )

        parts = tuple(part(perturbation) for perturbation in _all("imagenet"))
        return Benchmark(name=name, parts=parts, scores=entry.scores)

    entry = replace(
        VALIDATION,
        name=name,
        about="the sequences of ImageNet-P made here, from the validation images: flip probability, mFR, T5D"
        if difficulty == 1
        else f"the same at difficulty {difficulty}: flip probability, T5D",
        source=_SOURCE,
        build=build,
        scores=partial(
            flip_scores,
            benchmark=name,
            perturbations=PRESETS["imagenet"].reported,
            mean=mean_flip_rate if difficulty == 1 else mean_flip_probability,
        ),
    )
    return entry


def _cifar(classes: Classes) -> Entry:
    clean = CLEAN[classes]
    name = f"{clean.name}-p:generated"

    def build(options: Options) -> Benchmark:
        with opening(entry, options) as root:
            images = cifar(root, classes)
        treatment = cifar_as_stored(options)
        base = array_part(name, name, classes, images, root)
        about: Mapping[str, Any] = {
            "dataset": f"{clean.name.upper()}-P, made from {clean.name.upper()}",
            "variant": "generated",
            "preprocessing": treatment.settings,
        }

        def part(perturbation: str) -> Part:
            data: Dataset[Any] = images
            condition: Condition = Perturbed(perturbation=perturbation, preset="cifar", seed=_SEED)
            if treatment.size not in (None, SIDE):  # frames are made at 32 pixels, and then resized
                data = Sequences(images, perturbation, preset="cifar", seed=_SEED, preprocess=treatment)
                condition = Flips.of_generated(perturbation, "cifar", seed=_SEED)
            return replace(
                base,
                name=f"{name}/{perturbation}",
                data=data,
                conditions=(condition,),
                settings={**base.settings, **about},
            )

        parts = tuple(part(perturbation) for perturbation in _all("cifar"))
        return Benchmark(name=name, parts=parts, scores=entry.scores)

    entry = replace(
        clean,
        name=name,
        about=f"the sequences of CIFAR-{classes}-P made here, from the test images: mean flip probability, T5D",
        source=_SOURCE,
        build=build,
        scores=partial(
            flip_scores,
            benchmark=name,
            perturbations=PRESETS["cifar"].reported,
            mean=mean_flip_probability,
        ),
    )
    return entry


ENTRIES = (*(_imagenet(difficulty) for difficulty in (1, 2, 3)), _cifar(10), _cifar(100))
