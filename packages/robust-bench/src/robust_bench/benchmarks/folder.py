"""Benchmarks on images of the user's own."""

from pathlib import Path
from typing import Any

from robust_bench.benchmarks.entry import Options
from robust_bench.benchmarks.family import Family
from robust_bench.copies import stored_size
from robust_bench.datasets.class_map import read_class_map
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.readers import open_images
from robust_bench.part import Part
from robust_bench.preprocess import AsStored, Preprocess

_LAYOUT = (
    "Expected DIR/<class>/<image>, one folder per class in the order of the labels (numbers inside names count as "
    "numbers); with --class_map FILE the labels come from a text file of one class name a line, in the order of the "
    "model's classes, or of lines with a name and a label. Other formats: --reader wds for WebDataset shards in DIR, "
    "'wds/val-{000..063}.tar' for some of them; --reader tar for tar files of class folders; --reader hfds/NAME "
    "--split SPLIT for a Hugging Face data set, NAME being that on the Hub or a folder, and DIR what keeps the download"
)


def _part(options: Options) -> Part:
    """Open the images.

    Raises:
        ValueError, FileNotFoundError: if that fails; the message says how they should lie.
    """
    chosen = _treatment(options)
    class_map = None if options.class_map is None else read_class_map(options.class_map)
    try:
        opened = open_images(
            options.data, reader=options.reader, class_map=class_map, split=options.split, preprocess=chosen
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {_LAYOUT}") from error
    except ValueError as error:
        raise ValueError(f"the benchmark 'folder': {error}. {_LAYOUT}") from error
    settings: dict[str, Any] = {"dataset": "folder"}
    if options.data is not None:
        settings["path"] = str(options.data)
    if options.reader:
        settings["reader"] = options.reader
    if options.reader.lower().startswith("hfds/"):
        settings["split"] = options.split
    if class_map is not None:
        settings["class_map"] = class_map.sha256
    settings |= {"preprocessing": chosen.settings, "classes": opened.num_classes}
    return Part(name="folder", data=opened, num_classes=opened.num_classes, settings=settings)


def _treatment(options: Options) -> Treatment:
    """The model's resize and crop; an adversarial copy by `perturb` has its size and is not resized again."""
    stored = None if options.data is None or options.reader else stored_size(options.data)
    if stored is None:
        return options.preprocess or Preprocess()
    declared = None if options.preprocess is None else options.preprocess.size
    return AsStored(stored=stored, size=options.size or declared)


def _fits(path: Path) -> bool:
    """Whether a folder holds class folders or tar files."""
    return any(entry.is_dir() or entry.suffix == ".tar" for entry in path.iterdir())


FAMILY = Family(
    name="folder",
    about="images in DIR/<class>/<image>, or read as --reader says",
    source="yours",
    part=_part,
    eps=(1 / 255, 2 / 255, 4 / 255, 8 / 255),
    autoattack_eps=4 / 255,
    generated="folder-c",
    layout=_LAYOUT,
    fits=_fits,
)
ENTRIES = FAMILY.entries()
