"""ImageNet-S: the same files through other decoders and resizers, as they differ between training and deployment."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
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
from robust_bench.datasets.decoded import Reading, read_encoded
from robust_bench.datasets.decoders import CELLS, available_cells, missing
from robust_bench.datasets.imagenet_classes import IMAGENET
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.metrics import bootstrap_means, decoder_score
from robust_bench.part import Benchmark, Found, Part
from robust_bench.result import Row
from robust_bench.warning import EvaluationWarning

NAME = "imagenet-s"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Images as a decoder and a resizer gave them; nothing is changed any more.

    Args:
        decoder: that read them.
        resizer: that made them smaller.
    """

    decoder: str
    resizer: str
    only_right: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name the cell."""
        return f"{self.decoder}, {self.resizer}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give both names."""
        return {"kind": "decoding", "decoder": self.decoder, "resizer": self.resizer}

    def change(self, _model: Model, images: Tensor, _labels: Tensor, _random: ImageRandom, /) -> Tensor:
        """Return the same images."""
        return images


def scores(found: Found) -> Iterator[Row]:
    """Give the mean and the deviation of accuracy over the cells, which are part of the score.

    Tang et al., "RobustART", arXiv:2109.05211. Intervals are bootstrapped over images, which all cells share.
    """
    cells = {
        (each.settings["decoder"], each.settings["resizer"]): each
        for part, answers in found.items()
        if part.startswith(f"{NAME}/")
        for each in answers
    }
    if not cells:
        return
    common = set.intersection(*({int(number) for number in each.ids} for each in cells.values()))
    right = {
        "/".join(cell): torch.from_numpy(each.right[np.isin(each.ids, sorted(common))]) for cell, each in cells.items()
    }
    if len(common) < 2:
        return
    names = [" ".join(cell) for cell in cells]
    for metric, value in (("mean_accuracy", _mean), ("accuracy_deviation", _deviation)):
        interval = bootstrap_means(right, value)
        yield score_row(
            benchmark=NAME,
            condition=f"{len(cells)} of {len(CELLS)} cells",
            settings={"cells": names},
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
    with opening(VALIDATION, options, "val") as root:
        labels = IMAGENET.labels(root)
    size = options.size or (options.preprocess.size if options.preprocess is not None else 224)
    cells = available_cells()
    if lacking := missing():
        warnings.warn(
            f"{len(CELLS) - len(cells)} of the {len(CELLS)} cells of {NAME} are left out, since packages are missing "
            f"({', '.join(lacking)}): pip install 'robust-bench[system]'. The score says over which cells it is",
            EvaluationWarning,
            stacklevel=2,
        )
    parts = []
    for decoder, resizer in cells:
        reading = Reading(decoder=decoder, resizer=resizer, size=size)
        parts.append(
            Part(
                name=f"{NAME}/{decoder}-{resizer}",
                benchmark=NAME,
                data=LabelledFolder(root, labels, preprocess=reading, read=read_encoded),
                conditions=(Decoded(decoder=decoder, resizer=resizer),),
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
        )
    return Benchmark(name=NAME, parts=tuple(parts), scores=scores)


ENTRIES = (
    dataclasses.replace(
        VALIDATION,
        name=NAME,
        about=f"ImageNet's validation files through {len(CELLS)} pairs of decoder and resizer: mean and deviation",
        source="Tang et al., arXiv:2109.05211",
        build=_build,
        scores=scores,
    ),
)
