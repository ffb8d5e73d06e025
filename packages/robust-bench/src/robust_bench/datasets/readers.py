"""A user's own data set, in any of the formats that can be read."""

from pathlib import Path

from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.folder import Folder
from robust_bench.datasets.hugging_face import HuggingFace
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.tar_folders import tar_folders
from robust_bench.datasets.tar_images import TarImages
from robust_bench.datasets.webdataset import webdataset

READERS = {
    "": "folders DIR/<class>/<image>",
    "wds": "WebDataset, the tar files in DIR, or wds/PATTERN below it",
    "tar": "tar files of class folders, or one for each class, in DIR, or tar/PATTERN below it",
    "hfds": "hfds/NAME, a Hugging Face data set by its name on the Hub or its folder; DIR keeps what is downloaded",
}
"""What can be read, by the word before the slash; names are those of timm."""


def open_images(
    data: Path | None,
    *,
    reader: str = "",
    class_map: ClassMap | None = None,
    split: str = "validation",
    preprocess: Treatment,
) -> Folder | TarImages | HuggingFace:
    """Open a data set of images.

    Args:
        data: DIR; only hfds can do without.
        reader: one of `READERS`, with what it reads behind a slash.
        class_map: the label of every class; None means the data's own.
        split: of a Hugging Face data set; others are all read.
        preprocess: what is done to the images.

    Returns:
        A data set of pairs of a float image in [0, 1] and a label, with `num_classes`, `fingerprint` and `filename`.

    Raises:
        ValueError: for an unknown reader, a missing `data`, or what is wrong with the data.
        FileNotFoundError: if there is no such data.
        ModuleNotFoundError: if a package is missing.
    """
    kind, _, rest = reader.partition("/")
    kind = kind.lower()
    if kind not in READERS or (rest and not kind):
        raise ValueError(
            f"unknown reader {reader!r}: leave it out for {READERS['']}, or use "
            + "; ".join(f"{name} ({about})" for name, about in READERS.items() if name)
        )
    if kind == "hfds":
        if not rest:
            raise ValueError(f"the reader {reader!r} needs a name: {READERS[kind]}")
        return HuggingFace(rest, split=split, cache=data, class_map=class_map, preprocess=preprocess)
    if data is None:
        raise ValueError(f"the data set needs its images, {READERS[kind]}: give data (--data DIR)")
    if kind:
        opened = webdataset if kind == "wds" else tar_folders
        return opened(data, rest, class_map=class_map, preprocess=preprocess)
    return Folder(data, preprocess=preprocess, class_map=class_map)
