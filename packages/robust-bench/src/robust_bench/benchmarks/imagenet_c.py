"""ImageNet-C and Tiny ImageNet-C, from their files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robust_bench.benchmarks.corruption_scores import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corruption_scores,
    error_scores,
)
from robust_bench.benchmarks.data_settings import as_stored, data_settings
from robust_bench.benchmarks.entry import Entry, Options, is_there
from robust_bench.benchmarks.imagenet import VALIDATION, validation
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions.stored import Stored
from robust_bench.corrupt_report import generated
from robust_bench.datasets.imagenet_classes import IMAGENET
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.listing import subfolders
from robust_bench.part import Benchmark, Part
from robust_bench.preprocess import AsStored

GROUPS = ("", "noise", "blur", "weather", "digital", "extra")
"""Folders in which the corruptions may lie, as they do when the archives are unpacked; "" is none."""

_TINY = 200


def cells(root: Path) -> Iterator[tuple[Stored, Path]]:
    """Find the folder of every corruption and severity; the four extra corruptions may be missing.

    Raises:
        FileNotFoundError: if one is missing.
    """
    for corruption in (*CORRUPTIONS, *EXTRA_CORRUPTIONS):
        base = next((root / group / corruption for group in GROUPS if (root / group / corruption).is_dir()), None)
        if base is None and corruption in EXTRA_CORRUPTIONS:
            continue
        for severity in SEVERITIES:
            if base is None or not (base / str(severity)).is_dir():
                raise FileNotFoundError(
                    f"{corruption} at severity {severity} is missing in {root}: no folder "
                    f"{(base or root / corruption) / str(severity)}"
                )
            yield Stored(corruption=corruption, severity=severity), base / str(severity)


def _parts(
    entry: Entry,
    root: Path,
    found: Iterable[tuple[Stored, Path]],
    labels: Mapping[str, int],
    treatment: AsStored,
    made: Mapping[str, Any],
    *,
    dataset: str,
    images: int,
) -> Iterator[Part]:
    settings = data_settings(
        dataset=dataset,
        path=root,
        classes=len(labels),
        images_expected=images,
        treatment=treatment,
        answer=f"among all {len(labels)} classes",
        **made,
    )
    for condition, cell in found:
        yield Part(
            name=f"{entry.name}/{condition.corruption}-{condition.severity}",
            benchmark=entry.name,
            data=LabelledFolder(cell, labels, preprocess=treatment),
            conditions=(condition,),
            num_classes=len(labels),
            settings=settings,
        )


def _imagenet_c(options: Options) -> Benchmark:
    with opening(IMAGENET_C, options) as root:
        found = list(cells(root))
        labels = {cell: IMAGENET.labels(cell) for _, cell in found}[found[0][1]]
        made = _made(root, found)
    clean = (validation(options),) if is_there(VALIDATION, options.data) else ()
    parts = _parts(IMAGENET_C, root, found, labels, as_stored(options), made, dataset="ImageNet-C", images=50_000)
    return Benchmark(name=IMAGENET_C.name, parts=(*clean, *parts), scores=IMAGENET_C.scores)


def _tiny_imagenet_c(options: Options) -> Benchmark:
    with opening(TINY_IMAGENET_C, options) as root:
        found = list(cells(root))
        classes = subfolders(found[0][1])
        for _, cell in found:
            _check_classes(cell, classes)
        made = _made(root, found)
    labels = {wnid: label for label, wnid in enumerate(classes)}
    treatment = AsStored(stored=64, size=options.size)
    parts = _parts(TINY_IMAGENET_C, root, found, labels, treatment, made, dataset="Tiny ImageNet-C", images=10_000)
    return Benchmark(name=TINY_IMAGENET_C.name, parts=tuple(parts), scores=TINY_IMAGENET_C.scores)


def _made(root: Path, found: Iterable[tuple[Stored, Path]]) -> dict[str, Any]:
    return generated(root, [(condition.corruption, condition.severity) for condition, _ in found])


def _check_classes(cell: Path, classes: Sequence[str]) -> None:
    """Refuse a cell of Tiny ImageNet-C with other class folders than the first one has.

    Raises:
        ValueError: if they are others, or not 200.
    """
    here = subfolders(cell)
    if len(here) != _TINY or here != classes:
        odd = sorted(set(here) ^ set(classes))
        raise ValueError(
            f"{cell} holds {len(here)} class folders, expected the same {_TINY} in every cell"
            + (f"; {', '.join(odd[:3])} differ from the first" if odd else "")
        )


def _fits(path: Path, classes: int) -> bool:
    first = next((cell for group in GROUPS if (cell := path / group / CORRUPTIONS[0] / "1").is_dir()), None)
    return first is not None and len(subfolders(first)) == classes


_CELLS = "<corruption>/<severity>/<wnid>/*.JPEG, 15 corruptions at severities 1 to 5"
_GROUPED = (
    "The corruptions may lie in folders noise, blur, weather, digital, extra, as the archives are unpacked; "
    "speckle_noise, gaussian_blur, spatter, saturate may be missing"
)
IMAGENET_C = Entry(
    name="imagenet-c",
    about="ImageNet's validation images under 15 corruptions: CE, mCE, relative mCE",
    source="Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261",
    build=_imagenet_c,
    scores=partial(corruption_scores, benchmark="imagenet-c", clean="imagenet-val"),
    layout=(
        f"Expected DIR/imagenet-c/{_CELLS}, 224 x 224 pixels. {_GROUPED}. Relative mCE needs DIR/imagenet-val beside "
        "it. The archives are at https://zenodo.org/record/2235448; `robust-bench corrupt` makes such files"
    ),
    folders=("imagenet-c", "ImageNet-C"),
    fits=partial(_fits, classes=1000),
)
TINY_IMAGENET_C = Entry(
    name="tiny-imagenet-c",
    about="Tiny ImageNet's validation images under 15 corruptions: mean error",
    source="Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261",
    build=_tiny_imagenet_c,
    scores=partial(error_scores, benchmark="tiny-imagenet-c"),
    layout=(
        f"Expected DIR/tiny-imagenet-c/{_CELLS}, 64 x 64 pixels, 200 class folders, whose sorted order is that of the "
        f"model's classes. {_GROUPED}. The archive is at https://zenodo.org/record/2536630; `robust-bench "
        "corrupt` makes such files"
    ),
    folders=("tiny-imagenet-c", "Tiny-ImageNet-C"),
    fits=partial(_fits, classes=_TINY),
)
ENTRIES = (IMAGENET_C, TINY_IMAGENET_C)
