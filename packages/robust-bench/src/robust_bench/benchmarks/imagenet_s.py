"""ImageNet-S: the same files through other decoders and resizers, as they differ between training and deployment."""

import dataclasses
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.benchmarks.data_settings import data_settings
from robust_bench.benchmarks.entry import Options
from robust_bench.benchmarks.imagenet import CLASSES, VALIDATION
from robust_bench.benchmarks.opening import opening
from robust_bench.benchmarks.score_row import score_row
from robust_bench.datasets.colour_path import COLOUR_PATHS
from robust_bench.datasets.decoded import Reading, read_encoded
from robust_bench.datasets.decoders import CELLS, available_cells, missing
from robust_bench.datasets.imagenet_classes import IMAGENET
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.library_resize import resizing_by
from robust_bench.metrics import bootstrap_means, decoder_score
from robust_bench.part import Benchmark, Found, Part
from robust_bench.result import Row
from robust_bench.warning import EvaluationWarning

NAME = "imagenet-s"
COLOUR = f"{NAME}:colour"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Images as a decoder and a resizer gave them; nothing is changed any more.

    Args:
        reading: how they were read.
    """

    reading: Reading
    only_right: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name the cell, and the path of colour if there is one."""
        colour = "" if self.reading.colour == "rgb" else f", {self.reading.colour}"
        return f"{_cell(self.settings)}{colour}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give all names, and the versions of the libraries."""
        names = ("decoder", "resizer", "resized_by", "colour")
        return {"kind": "decoding"} | {name: getattr(self.reading, name) for name in names} | self.reading.versions

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same images."""
        return images


def scores(found: Found) -> Iterator[Row]:
    """Give the mean and the deviation of accuracy over the cells, which are part of the score.

    Tang et al., "RobustART", arXiv:2109.05211. Intervals are bootstrapped over images, which all cells share.
    """
    yield from _scores(found, NAME, len(CELLS), _cell)


def colour_scores(found: Found) -> Iterator[Row]:
    """Give the same over the paths of colour, which never enter the published score."""
    yield from _scores(found, COLOUR, len(COLOUR_PATHS), operator.itemgetter("colour"))


def _cell(settings: Mapping[str, Any]) -> str:
    """Name a pair of decoder and resizer, and who resized if it was not the library of that name."""
    by = " (by torch)" if settings["resized_by"] == "torch" else ""
    return f"{settings['decoder']}, {settings['resizer']}{by}"


def _scores(found: Found, benchmark: str, total: int, cell: Callable[[Mapping[str, Any]], str]) -> Iterator[Row]:
    cells = {
        cell(each.settings): each
        for part, answers in found.items()
        if part.startswith(f"{benchmark}/")
        for each in answers
    }
    if not cells:
        return
    common = set.intersection(*({int(number) for number in each.ids} for each in cells.values()))
    right = {name: torch.from_numpy(each.right[np.isin(each.ids, sorted(common))]) for name, each in cells.items()}
    if len(common) < 2:
        return
    for metric, value in (("mean_accuracy", _mean), ("accuracy_deviation", _deviation)):
        interval = bootstrap_means(right, value)
        yield score_row(
            benchmark=benchmark,
            condition=f"{len(cells)} of {total} cells",
            settings={"cells": list(cells)},
            metric=metric,
            value=interval.value,
            count=len(common),
            interval=interval,
        )


def _mean(accuracies: Mapping[str, float]) -> float:
    return decoder_score(accuracies).mean


def _deviation(accuracies: Mapping[str, float]) -> float:
    return decoder_score(accuracies).deviation


def _build(options: Options) -> Benchmark:
    cells = available_cells()
    readings = {
        f"{decoder}-{resizer}": Reading(decoder=decoder, resizer=resizer, by=resizing_by(resizer), size=_size(options))
        for decoder, resizer in cells
    }
    parts = _parts(NAME, readings, options)
    if lacking := [f"{package}: {reason}" for package, reason in missing().items()]:
        warnings.warn(
            f"{len(CELLS) - len(cells)} of the {len(CELLS)} cells of {NAME} are left out, since their decoders' "
            f"packages are missing ({'; '.join(lacking)}): pip install 'robust-bench[system]'. The score says over "
            "which cells it is, and where torch resized in OpenCV's place",
            EvaluationWarning,
            stacklevel=2,
        )
    return Benchmark(name=NAME, parts=parts, scores=scores)


def _build_colour(options: Options) -> Benchmark:
    readings = {
        name: Reading(decoder="pil", resizer="pil-bilinear", colour=name, size=_size(options)) for name in COLOUR_PATHS
    }
    return Benchmark(name=COLOUR, parts=_parts(COLOUR, readings, options), scores=colour_scores)


def _size(options: Options) -> int:
    return options.size or (options.preprocess.size if options.preprocess is not None else 224)


def _parts(benchmark: str, readings: Mapping[str, Reading], options: Options) -> tuple[Part, ...]:
    with opening(VALIDATION, options, "val") as root:
        labels = IMAGENET.labels(root)
    return tuple(
        Part(
            name=f"{benchmark}/{name}",
            benchmark=benchmark,
            data=LabelledFolder(root, labels, preprocess=reading, read=read_encoded),
            conditions=(Decoded(reading=reading),),
            num_classes=CLASSES,
            settings=data_settings(
                dataset="ImageNet-S",
                path=root,
                classes=CLASSES,
                images_expected=50_000,
                treatment=reading,
                answer=f"among all {CLASSES} classes",
            ),
        )
        for name, reading in readings.items()
    )


ENTRIES = (
    dataclasses.replace(
        VALIDATION,
        name=NAME,
        about=f"ImageNet's validation files through {len(CELLS)} pairs of decoder and resizer: mean and deviation",
        source="Tang et al., arXiv:2109.05211",
        build=_build,
        scores=scores,
    ),
    dataclasses.replace(
        VALIDATION,
        name=COLOUR,
        about=f"the same files through {len(COLOUR_PATHS)} ways from RGB to YUV and back, which no published score has",
        source="ITU-R BT.601 and BT.709, JFIF",
        build=_build_colour,
        scores=colour_scores,
    ),
)
