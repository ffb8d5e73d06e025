"""What a result says of files, and how files of a fixed size are treated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_bench.benchmarks.entry import Options
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.preprocess import AsStored


def data_settings(
    *,
    dataset: str,
    path: Path,
    classes: int,
    treatment: Treatment,
    answer: str,
    images_expected: int | None = None,
    **more: str | int | Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a data set of files for the result.

    Args:
        dataset: its name.
        path: where it lies.
        classes: how many it has.
        treatment: what is done to the images.
        answer: among which classes the model answers, in words.
        images_expected: how many are published, where that is known; a set with others is evaluated all the same, and
            the result tells.
        more: further settings.
    """
    out: dict[str, Any] = {"dataset": dataset, "variant": "files", "path": str(path), "classes": classes}
    if images_expected is not None:
        out["images_expected"] = images_expected
    return out | more | {"preprocessing": treatment.settings, "answer": answer}


def as_stored(options: Options, stored: int = 224) -> AsStored:
    """Leave ImageNet's files of a fixed size as they are, but for a model that takes another size.

    That is the size that the user gave, else the one that the model declares.
    """
    declared = None if options.preprocess is None else options.preprocess.size
    return AsStored(stored=stored, size=options.size or declared)
