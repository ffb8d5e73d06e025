"""ImageNet-A, -O and -R: images of 200 of ImageNet's classes each, among which the model chooses."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from robust_bench.answers import Answers
from robust_bench.benchmarks.confidence_scores import CALIBRATION, SILENCE, confidence_scores
from robust_bench.benchmarks.entry import Entry, Options, is_there
from robust_bench.benchmarks.imagenet import VALIDATION, image_part, validation_of
from robust_bench.benchmarks.opening import opening
from robust_bench.benchmarks.score_row import score_row
from robust_bench.datasets.imagenet_classes import IMAGENET_A, IMAGENET_O, IMAGENET_R, ClassSet
from robust_bench.metrics import (
    auroc,
    average_precision,
    bootstrap,
    fpr_at_recall,
)
from robust_bench.part import Benchmark, Found, Part
from robust_bench.preprocess import Preprocess
from robust_bench.result import Row


def adversarial_scores(found: Found) -> Iterator[Row]:
    """Give how far confidence is from accuracy on ImageNet-A, and AURRA.

    Hendrycks et al., "Natural Adversarial Examples", CVPR 2021, arXiv:1907.07174.
    """
    for answers in found.get("imagenet-a", ())[:1]:
        yield from confidence_scores(answers, {**CALIBRATION, **SILENCE})


def anomaly_scores(found: Found) -> Iterator[Row]:
    """Give how well confidence tells ImageNet-O from the validation images of the same 200 classes.

    Hendrycks et al., "Natural Adversarial Examples", CVPR 2021, arXiv:1907.07174: the score of an image is minus the
    largest softmax probability among the 200 classes, and the images of ImageNet-O are positive. Both groups are
    resampled, each for itself.
    """
    if "imagenet-o" not in found or "imagenet-val-o" not in found:
        return
    outside, inside = found["imagenet-o"][0], found["imagenet-val-o"][0]
    scores = -torch.from_numpy(np.concatenate([outside.confidences, inside.confidences]))
    for metric, statistic in (
        ("average_precision", average_precision),
        ("auroc", auroc),
        ("fpr_at_95_recall", fpr_at_recall),
    ):
        yield from _score("imagenet-o", metric, scores, statistic, outside, inside)


def rendition_scores(found: Found) -> Iterator[Row]:
    """Give how much accuracy is lost on ImageNet-R, against the validation images of the same 200 classes.

    Hendrycks et al., "The Many Faces of Robustness", ICCV 2021, arXiv:2006.16241. Both groups are resampled, each for
    itself.
    """
    if "imagenet-r" not in found or "imagenet-val-r" not in found:
        return
    renditions, photographs = found["imagenet-r"][0], found["imagenet-val-r"][0]
    right = torch.from_numpy(np.concatenate([renditions.right, photographs.right]))
    yield from _score("imagenet-r", "accuracy_drop", right, _drop, renditions, photographs)


def _drop(right: Tensor, rendition: Tensor) -> float:
    return float(right[~rendition].double().mean() - right[rendition].double().mean())


def _score(
    benchmark: str,
    metric: str,
    values: Tensor,
    statistic: Callable[[Tensor, Tensor], float],
    first: Answers,
    second: Answers,
) -> Iterator[Row]:
    """A score of two groups of images, with its interval; nothing where one is empty."""
    if not len(first) or not len(second):
        return
    is_first = torch.arange(len(values)) < len(first)
    found = bootstrap((values, is_first), statistic, strata=is_first.long())
    yield score_row(
        benchmark=benchmark,
        condition="against the validation images of its classes",
        settings={},
        metric=metric,
        value=found.value,
        count=len(values),
        interval=found,
    )


def _build(letter: str, options: Options) -> Benchmark:
    """The benchmark of a set, with the validation images of its classes where they are of use and there."""
    entry = _ENTRIES[letter]
    with opening(entry, options) as root:
        labels = _CLASSES[letter].labels(root)
    part = image_part(
        entry.name,
        root,
        labels,
        options.preprocess or Preprocess(),
        dataset=_CLASSES[letter].name,
        images=_IMAGES[letter],
        wnids=tuple(labels),
    )
    part = dataclasses.replace(part, accuracy=letter != "o")  # where the folder is not the label
    return Benchmark(name=entry.name, parts=(part, *_photographs(letter, options, tuple(labels))), scores=entry.scores)


def _photographs(letter: str, options: Options, wnids: tuple[str, ...]) -> tuple[Part, ...]:
    if letter == "a" or (letter == "r" and not is_there(VALIDATION, options.data)):
        return ()
    return (validation_of(options, wnids, f"imagenet-val-{letter}"),)


_CLASSES: dict[str, ClassSet] = {"a": IMAGENET_A, "o": IMAGENET_O, "r": IMAGENET_R}
_IMAGES = {"a": 7_500, "o": 2_000, "r": 30_000}
_ENTRIES = {
    "a": Entry(
        name="imagenet-a",
        about="photographs that a ResNet-50 gets wrong, 200 classes: top-1, calibration, AURRA",
        source="Hendrycks et al., CVPR 2021, arXiv:1907.07174",
        build=partial(_build, "a"),
        scores=adversarial_scores,
        layout=(
            "Expected DIR/imagenet-a/<wnid>/*.jpg, 200 class folders. The archive is linked from "
            "https://github.com/hendrycks/natural-adv-examples"
        ),
        folders=("imagenet-a",),
        fits=IMAGENET_A.fits,
    ),
    "o": Entry(
        name="imagenet-o",
        about="images of none of ImageNet's classes: AUPR, AUROC and FPR95 against 200 classes of imagenet-val",
        source="Hendrycks et al., CVPR 2021, arXiv:1907.07174",
        build=partial(_build, "o"),
        scores=anomaly_scores,
        layout=(
            "Expected DIR/imagenet-o/<wnid>/*.jpg, 200 class folders, which are named by what the images are mistaken "
            "for, and beside it DIR/imagenet-val/<wnid>/*.JPEG. The archive is linked from "
            "https://github.com/hendrycks/natural-adv-examples"
        ),
        folders=("imagenet-o",),
        fits=lambda _path: False,  # DIR holds the validation images as well
    ),
    "r": Entry(
        name="imagenet-r",
        about="art, toys, sculptures ... of 200 of ImageNet's classes: top-1, and what is lost against imagenet-val",
        source="Hendrycks et al., ICCV 2021, arXiv:2006.16241",
        build=partial(_build, "r"),
        scores=rendition_scores,
        layout=(
            "Expected DIR/imagenet-r/<wnid>/*.jpg, 200 class folders, and where there is DIR/imagenet-val beside it, "
            "the same classes of that are evaluated too. The archive is linked from "
            "https://github.com/hendrycks/imagenet-r"
        ),
        folders=("imagenet-r",),
        fits=IMAGENET_R.fits,
    ),
}
ENTRIES = tuple(_ENTRIES.values())
