"""Named benchmarks: data sets, the conditions under which a model is looked at, and scores.

Examples:
    >>> names()[:4]
    ('digits', 'digits-c', 'digits-pgd', 'digits-autoattack')
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from robust_bench.benchmarks import (
    adversarial,
    cifar,
    cifar_attacks,
    cifar_c,
    cifar_p,
    digits,
    folder,
    generated_sequences,
    human,
    imagenet,
    imagenet_attacks,
    imagenet_c,
    imagenet_p,
    imagenet_s,
    imagenet_subsets,
    objectnet,
)
from robust_bench.benchmarks.analyses import Analyses as Analyses
from robust_bench.benchmarks.attacks import AutoAttack as AutoAttack
from robust_bench.benchmarks.attacks import Sweep as Sweep
from robust_bench.benchmarks.entry import Entry as Entry
from robust_bench.benchmarks.entry import Options as Options
from robust_bench.benchmarks.entry import is_there
from robust_bench.part import Benchmark as Benchmark
from robust_bench.part import Part as Part
from robust_bench.preprocess import Preprocess

__all__ = [
    "ENTRIES",
    "AutoAttack",
    "Benchmark",
    "Entry",
    "Options",
    "Part",
    "Sweep",
    "entry",
    "is_there",
    "load",
    "names",
]

_MODULES = (
    digits,
    folder,
    imagenet,
    imagenet_subsets,
    objectnet,
    imagenet_c,
    imagenet_p,
    imagenet_s,
    imagenet_attacks,
    cifar,
    cifar_attacks,
    cifar_c,
    cifar_p,
    generated_sequences,
    human,
    adversarial,
)
ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for module in _MODULES for entry in module.ENTRIES})
"""All benchmarks by name."""

_ALIASES = {"autoattack": "imagenet-autoattack"}


def names() -> tuple[str, ...]:
    """Name the benchmarks."""
    return tuple(ENTRIES)


def entry(name: str) -> Entry:
    """Look a benchmark up; "autoattack" is that of ImageNet, on which most results are published.

    Raises:
        ValueError: for an unknown name.

    Examples:
        >>> entry("autoattack").name
        'imagenet-autoattack'
    """
    name = _ALIASES.get(name, name)
    if name not in ENTRIES:
        raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(ENTRIES)}")
    return ENTRIES[name]


def load(
    name: str,
    data: str | Path | None = None,
    *,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    attack: Sweep | None = None,
    autoattack: AutoAttack | None = None,
    analyses: Analyses | None = None,
    aggregation: Literal["mean", "max"] = "mean",
    ids: str | Path | None = None,
    reader: str = "",
    class_map: str | Path | None = None,
    split: str = "validation",
) -> Benchmark:
    """Build a benchmark.

    Args:
        name: one of `names()`.
        data: the folder of the data set, or one that holds several of them; `entry(name).layout` says how it looks.
        preprocess: how files are resized and cropped where the benchmark leaves that to the model, None means 224 from
            256. It is the model's own choice: `preprocess.declared(model)`.
        size: side of the model's input where stored sizes are not to be kept, in pixels.
        attack: the settings of the `-pgd` benchmarks.
        autoattack: the settings of the `-autoattack` benchmarks.
        analyses: the settings of `-steps`, `-transfer` and the other analyses.
        aggregation: how 1000 classes become the 16 that people know.
        ids: a file with the names of the images of a subset.
        reader: of data of one's own, see `robust_bench.datasets.readers.READERS`.
        class_map: a file from class names to labels, for data of one's own.
        split: of a Hugging Face data set.

    Raises:
        ValueError: for an unknown name, or if `data` is missing, given in vain, or holds no images.
        FileNotFoundError: if there is no such folder.

    Examples:
        >>> clean, corrupted = load("digits-c").parts
        >>> len(corrupted.conditions), len(corrupted.data)
        (35, 450)
    """
    found = entry(name)
    if found.layout is None and data is not None:
        raise ValueError(f"the benchmark {name!r} brings its own images, so {str(data)!r} is in vain: leave --data out")
    options = Options(
        data=None if data is None else Path(data),
        preprocess=preprocess,
        size=size,
        attack=attack or Sweep(),
        autoattack=autoattack or AutoAttack(),
        analyses=analyses or Analyses(),
        aggregation=aggregation,
        ids=None if ids is None else Path(ids),
        reader=reader,
        class_map=None if class_map is None else Path(class_map),
        split=split,
    )
    return found.build(options)
