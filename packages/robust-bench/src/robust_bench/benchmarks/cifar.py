"""The test images of CIFAR-10 and CIFAR-100."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from robust_bench.benchmarks.data_settings import data_settings
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.opening import opening
from robust_bench.conditions import Clean, Condition
from robust_bench.datasets.arrays import Arrays, mapped
from robust_bench.datasets.cifar import FOLDERS, SIDE, cifar
from robust_bench.part import Benchmark, Part
from robust_bench.preprocess import AsStored

IMAGES = 10_000
"""Of the test sets, and thus of every corruption at every severity and of every perturbation."""

Classes = Literal[10, 100]


def array_part(
    name: str,
    benchmark: str,
    classes: Classes,
    data: Arrays,
    path: Path,
    *,
    condition: Condition | None = None,
    made: Mapping[str, Any] | None = None,
) -> Part:
    """Make the part of images, or sequences, of CIFAR's size.

    Args:
        name: of the part.
        benchmark: of its rows, e.g. "cifar-10-c".
        classes: 10 or 100.
        data: the images.
        path: where they lie.
        condition: what was done to them; None means that they are clean.
        made: how the files were made, see `robust_bench.corrupt_report.generated`.
    """
    return Part(
        name=name,
        benchmark=benchmark,
        data=data,
        conditions=(condition or Clean(),),
        num_classes=classes,
        settings=data_settings(
            dataset=benchmark.upper(),
            path=path,
            classes=classes,
            images_expected=IMAGES,
            treatment=data.preprocess,
            answer=f"among all {classes} classes",
            **(made or {}),
        ),
    )


def cifar_as_stored(options: Options) -> AsStored:
    """Leave the images as they are, but for a size that the user gave."""
    return AsStored(stored=SIDE, size=options.size)


def array_labels(file: Path, classes: Classes, count: int) -> list[int]:
    """Read labels that are stored beside arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold `count` labels of so many classes.
    """
    found = mapped(file)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise ValueError(f"{file} must hold {count} integers, got {found.dtype} {found.shape}")
    low, high = int(found.min()), int(found.max())
    if (low, high) != (0, classes - 1):
        raise ValueError(f"{file} has labels {low} to {high}, expected 0 to {classes - 1}: is it CIFAR-{classes}?")
    return [int(label) for label in found]


def check_shape(file: Path, shape: tuple[int | None, ...]) -> None:
    """Refuse an array of another shape, where None stands for any size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the shape differs.
    """
    found = mapped(file).shape
    fits = len(found) == len(shape) and all(wanted in (None, size) for wanted, size in zip(shape, found, strict=True))
    if not fits:
        expected = ", ".join("frames" if size is None else str(size) for size in shape)
        raise ValueError(f"{file} must have the shape ({expected}), got {found}")


def _entry(classes: Classes) -> Entry:
    name = f"cifar-{classes}"

    def build(options: Options) -> Benchmark:
        with opening(entry, options) as root:
            data = cifar(root, classes, preprocess=cifar_as_stored(options))
        return Benchmark(name=name, parts=(array_part(name, name, classes, data, root),))

    entry = Entry(
        name=name,
        about=f"the test images of CIFAR-{classes}: top-1",
        source="Krizhevsky 2009",
        build=build,
        layout=(
            f"Expected DIR/{FOLDERS[classes]} with the files of the python version, as "
            f"cifar-{classes}-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html is unpacked"
        ),
        folders=(FOLDERS[classes], name),
        fits=lambda path: path.name == FOLDERS[classes],
    )
    return entry


CLEAN: Mapping[Classes, Entry] = {10: _entry(10), 100: _entry(100)}
ENTRIES = tuple(CLEAN.values())
