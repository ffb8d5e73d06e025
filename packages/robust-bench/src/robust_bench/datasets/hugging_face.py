"""Data sets in the formats of Hugging Face's `datasets`."""

import functools
import hashlib
import importlib
import importlib.util
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import read_picture
from robust_bench.fingerprint import without_addresses

_AT_ONCE = 1000  # rows


class HuggingFace(Dataset[tuple[Tensor, int]]):
    """Images of a Hugging Face data set, read by timm, as float tensors in [0, 1] with labels.

    Lhoest et al., "Datasets: A Community Library for Natural Language Processing", EMNLP 2021, arXiv:2109.02846. Images
    are in the column `image`, or in the only one of images; labels in `label`, or in the only one of classes. A data
    set that is neither a local folder nor in the cache is downloaded, unless HF_HUB_OFFLINE=1 is set.

    Args:
        name: of the data set on the Hub, or a local folder of Parquet files or of images.
        split: e.g. "validation".
        cache: folder for what is downloaded and prepared; None means that of `datasets`.
        class_map: the label of every class name, or of numbers where the classes have no names; None takes the data
            set's own labels.
        preprocess: what is done to the images.

    Raises:
        ModuleNotFoundError: if `datasets` is not installed.
        FileNotFoundError: if there is no such data set.
        ValueError: if it cannot be opened, there is no such split, it has no images or no labels, or a class is not in
            the map; and for an unreadable image when it is taken.
    """

    def __init__(
        self,
        name: str,
        *,
        split: str = "validation",
        cache: str | Path | None = None,
        class_map: ClassMap | None = None,
        preprocess: Treatment,
    ) -> None:
        self.name, self.split = name, split
        self.preprocess = preprocess
        self.transform = preprocess.transform()
        self._reader, self._image, label = _reader(name, split, cache)
        self._rows = self._reader.dataset.with_format("arrow")
        self.classes: tuple[str, ...] | None = _names(self._reader.dataset.features[label])
        found = [value for rows in self._in_parts(label) for value in rows.column(label).to_pylist()]
        labels = {text: self._label(value, class_map) for text, value in {str(each): each for each in found}.items()}
        self._labels = array("q", (labels[str(value)] for value in found))
        if class_map is not None:
            self.num_classes = class_map.num_classes
        else:
            self.num_classes = max(self._labels) + 1 if self.classes is None else len(self.classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names, sizes and labels of all images, and of what is done to them."""
        found = hashlib.sha256(without_addresses(self.preprocess).encode())
        found.update(self._labels.tobytes())
        for rows in self._in_parts(self._image):
            columns = rows.flatten()
            paths, contents = columns.column(f"{self._image}.path"), columns.column(f"{self._image}.bytes")
            for path, content in zip(paths.to_pylist(), contents, strict=True):
                size = content.as_buffer().size if content.is_valid else _size(path)
                found.update(f"{_last(path)}\t{size}\n".encode())
        return found.hexdigest()

    def filename(self, index: int) -> str:
        """Name an image by its split, its number and its file, which alone may be that of others: "test/12/cat.png"."""
        path = self._rows[index : index + 1].flatten().column(f"{self._image}.path")[0].as_py()
        return "/".join(part for part in (self.split, str(index), _last(path)) if part)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name = f"{self.filename(index)} of {self.name}"
        try:
            file, _ = self._reader[index]
        except (OSError, AssertionError, TypeError) as error:  # no such file; neither a file nor bytes; no image at all
            raise ValueError(f"cannot read the image {name}: {error!r}") from error
        with file:
            return read_picture(file, name=name, transform=self.transform), self._labels[index]

    def _in_parts(self, column: str) -> Any:
        """Tables of some rows of one column."""
        return self._rows.select_columns([column]).iter(_AT_ONCE)

    def _label(self, value: Any, class_map: ClassMap | None) -> int:
        """The label of what is written in the data set.

        Raises:
            ValueError: if it is no number of a class, or not in the map.
        """
        what = f"the split {self.split!r} of {self.name}"
        if value is None or (isinstance(value, int) and value < 0):
            raise ValueError(f"{what} has images without labels (written as {value}): choose another split")
        if class_map is not None:
            names = self.classes
            return class_map.label(str(value) if names is None else names[value], of=what)
        if not isinstance(value, int):
            raise ValueError(
                f"{what} has the label {value!r}, no number: give a class map, with the label of every name"
            )
        return value


def _reader(name: str, split: str, cache: str | Path | None) -> tuple[Any, str, str]:
    """Open a data set by timm's reader; the names of its columns of images and of labels come with it."""
    spec = importlib.util.find_spec("datasets")
    if spec is None or spec.origin is None:  # a folder called datasets in the working directory has no origin
        raise ModuleNotFoundError(
            "Hugging Face data sets are read by the package `datasets`, which is not installed: pip install datasets"
        )
    from timm.data.readers.reader_factory import create_reader

    datasets = importlib.import_module("datasets")
    root = None if cache is None else str(cache)
    try:
        features = datasets.load_dataset(name, split=split, cache_dir=root).features
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(
            f"cannot open the split {split!r} of the Hugging Face data set {name} ({error}): give the name that it has "
            "on the Hub, or a local folder, and one of its splits (--split)"
        ) from error
    image = _only("image", features, datasets.Image, name)
    label = _only("label", features, datasets.ClassLabel, name)
    reader = create_reader(f"hfds/{name}", root=root, split=split, input_key=image, target_key=label)
    if not len(reader):
        raise ValueError(f"the split {split!r} of the Hugging Face data set {name} has no images")
    return reader, image, label


def _only(usual: str, features: Mapping[str, Any], kind: type, name: str) -> str:
    """Find the column of images or of labels.

    Raises:
        ValueError: if it has not the usual name, and there are none of this kind or several.
    """
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if usual in features:
        return usual
    if len(found) != 1:
        raise ValueError(
            f"{name} must have a column {usual!r}, or one column of {kind.__name__}s, got {', '.join(features)}: "
            "rename the one to use"
        )
    return found[0]


def _names(feature: Any) -> tuple[str, ...] | None:
    names = getattr(feature, "names", None)
    return None if names is None else tuple(names)


def _size(path: str | None) -> int:
    """Of a file; 0 if there is none."""
    return Path(path).stat().st_size if path is not None and Path(path).is_file() else 0


def _last(path: str | None) -> str:
    return "" if path is None else Path(path).name
