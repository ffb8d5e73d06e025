"""One line of the list of benchmarks: what it is, where its data lie, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robust_bench.benchmarks.analyses import Analyses
from robust_bench.benchmarks.attacks import AutoAttack, Sweep
from robust_bench.part import Benchmark, Scores
from robust_bench.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user chooses about benchmarks.

    Args:
        data: the folder of one data set, or of several, each in a folder of its own.
        preprocess: the model's own resize and crop; None means 224 from 256.
        size: side of the model's input where the user gave it; None leaves stored sizes.
        attack: settings of PGD.
        autoattack: settings of AutoAttack.
        analyses: settings of the analyses of attacks.
        aggregation: how 1000 classes become the 16 that people know, "mean" or "max".
        ids: a file with the names of the images of a subset, one a line; None means the subset's own.
        reader: of own data: "" for class folders, "wds" or "wds/PATTERN" for WebDataset, "tar" or "tar/PATTERN",
            "hfds/NAME" for a Hugging Face data set.
        class_map: of own data: a text file of class names, one a line in the order of the labels, or of lines with a
            name and a label.
        split: of a Hugging Face data set.
    """

    data: Path | None = None
    preprocess: Preprocess | None = None
    size: int | None = None
    attack: Sweep = field(default_factory=Sweep)
    autoattack: AutoAttack = field(default_factory=AutoAttack)
    analyses: Analyses = field(default_factory=Analyses)
    aggregation: Literal["mean", "max"] = "mean"
    ids: Path | None = None
    reader: str = ""
    class_map: Path | None = None
    split: str = "validation"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A benchmark in the list.

    Args:
        name: e.g. "imagenet-a".
        about: in one line.
        source: of the data and the scores.
        build: makes the benchmark.
        scores: over its parts, from records alone, so that it also scores what separate jobs have left.
        unmerged: what scoring what separate jobs have left cannot do, and what to do instead; "" if nothing.
        layout: what the folder must hold and how to get it, for the error message and the documentation; None: no
            files are needed.
        folders: names of the folder below `--data DIR`, the first of which is recommended.
        fits: whether a folder looks like this data, so that `--data DIR` may also be the folder itself.
    """

    name: str
    about: str
    source: str
    build: Callable[[Options], Benchmark]
    scores: Scores | None = None
    unmerged: str = ""
    layout: str | None = None
    folders: tuple[str, ...] = ()
    fits: Callable[[Path], bool] | None = None


def locate(entry: Entry, data: Path | None) -> Path:
    """Find the folder of a benchmark's data: one of its names below `data`, or `data` itself.

    Raises:
        ValueError: if no folder is given.
        FileNotFoundError: if there is none; the message says what is expected and how to get it.
    """
    if data is None:
        raise ValueError(f"the benchmark {entry.name!r} needs its images: give data (--data DIR). {entry.layout}")
    if not data.is_dir():
        raise FileNotFoundError(f"no folder {data} for the benchmark {entry.name!r}. {entry.layout}")
    for name in entry.folders:
        if (data / name).is_dir():
            return data / name
    if entry.fits is None or entry.fits(data):
        return data
    looked = " or ".join(str(data / name) for name in entry.folders)
    raise FileNotFoundError(f"no data of the benchmark {entry.name!r} in {data}: looked for {looked}. {entry.layout}")


def is_there(entry: Entry, data: Path | None) -> bool:
    """Whether a benchmark could be run: it needs no files, or they are found."""
    if entry.layout is None:
        return True
    try:
        locate(entry, data)
    except (ValueError, OSError):
        return False
    return True
