"""CIFAR-10-C and CIFAR-100-C, from their files."""

from functools import partial
from pathlib import Path

from robust_bench.benchmarks.cifar import IMAGES, Classes, array_labels, array_part, check_shape, cifar_as_stored
from robust_bench.benchmarks.corruption_scores import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, error_scores
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions.stored import Stored
from robust_bench.corrupt_report import generated
from robust_bench.datasets.arrays import Arrays
from robust_bench.datasets.cifar import SIDE
from robust_bench.part import Benchmark

ROWS = len(SEVERITIES) * IMAGES
"""Of every file: the severities one after another."""


def _entry(classes: Classes, record: str) -> Entry:
    name = f"cifar-{classes}-c"

    def build(options: Options) -> Benchmark:
        treatment = cifar_as_stored(options)
        parts = []
        with opening(entry, options) as root:
            extra = (name for name in EXTRA_CORRUPTIONS if (root / f"{name}.npy").is_file())
            corruptions = (*CORRUPTIONS, *extra)
            made = generated(root, [(name, severity) for name in corruptions for severity in SEVERITIES])
            labels = array_labels(root / "labels.npy", classes, ROWS)
            for corruption in corruptions:
                file = root / f"{corruption}.npy"
                check_shape(file, (ROWS, SIDE, SIDE, 3))
                for severity in SEVERITIES:
                    rows = range((severity - 1) * IMAGES, severity * IMAGES)
                    data = Arrays(file, labels[rows.start : rows.stop], rows=rows, preprocess=treatment)
                    condition = Stored(corruption=corruption, severity=severity)
                    part = f"{name}/{corruption}-{severity}"
                    parts.append(array_part(part, name, classes, data, root, condition=condition, made=made))
        return Benchmark(name=name, parts=tuple(parts), scores=entry.scores)

    entry = Entry(
        name=name,
        about=f"the test images of CIFAR-{classes} under 15 corruptions: mean error",
        source="Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261",
        build=build,
        scores=partial(error_scores, benchmark=name),
        layout=(
            f"Expected DIR/{name.upper()}/<corruption>.npy, 15 files of uint8 (50000, 32, 32, 3), severities 1 to 5 "
            "one after another, and labels.npy; speckle_noise, gaussian_blur, spatter, saturate may be missing. The "
            f"archive is at https://zenodo.org/record/{record}; `robust-bench corrupt` makes such files"
        ),
        folders=(name.upper(), name),
        fits=lambda path: _fits(path, classes),
    )
    return entry


def _fits(path: Path, classes: Classes) -> bool:
    try:
        return bool(array_labels(path / "labels.npy", classes, ROWS))
    except (ValueError, OSError):
        return False


ENTRIES = (_entry(10, "2535967"), _entry(100, "3555552"))
