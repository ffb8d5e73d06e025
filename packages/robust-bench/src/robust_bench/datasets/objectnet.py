"""ObjectNet: which of its objects are classes of ImageNet, and the border of its images."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.preprocess import Preprocess

FILES = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "imagenet_to_label_2012_v2",
    "pytorch_to_imagenet_2012_id.json",
)
"""The mapping files that come with the data set."""


def objectnet_classes(mappings: Path) -> dict[str, tuple[int, ...]]:
    """Find the ImageNet indices of every object folder that has any, from the data set's own mapping files.

    Barbu et al., "ObjectNet: A large-scale bias-controlled dataset for pushing the limits of object recognition
    models", NeurIPS 2019. Folder -> name of the object -> names of ImageNet classes, joined by "; " -> line of
    `imagenet_to_label_2012_v2` with that name -> index whose entry in `pytorch_to_imagenet_2012_id.json` is that line.

    Args:
        mappings: the folder `mappings` of the data set.

    Returns:
        Sorted by folder: the indices of its classes, ascending.

    Raises:
        FileNotFoundError: if a mapping file is missing.
        ValueError: if one is damaged, or they do not fit together.
    """
    names: Mapping[str, str] = _json(mappings / FILES[0])
    overlap: Mapping[str, str] = _json(mappings / FILES[1])
    lines = [line.strip() for line in _text(mappings / FILES[2]).splitlines()]
    index_of = {line: int(index) for index, line in _json(mappings / FILES[3]).items()}
    folders = {name: folder for folder, name in names.items()}
    found = {}
    for name, classes in overlap.items():
        if name not in folders:
            raise ValueError(f"{mappings / FILES[1]} has the object {name!r}, which {FILES[0]} does not know")
        found[folders[name]] = tuple(sorted(_index(each, lines, index_of, mappings) for each in classes.split("; ")))
    return dict(sorted(found.items()))


def _index(name: str, lines: list[str], index_of: Mapping[int, int], mappings: Path) -> int:
    at = [number for number, line in enumerate(lines) if line == name]
    if len(at) != 1 or at[0] not in index_of:
        raise ValueError(
            f"the ImageNet class {name!r} of {mappings / FILES[1]} is {len(at)} times in {FILES[2]}, or has no index "
            f"in {FILES[3]}: the mapping files are damaged or of different versions"
        )
    return index_of[at[0]]


def _json(file: Path) -> Any:
    try:
        found = json.loads(_text(file))
    except ValueError as error:
        raise ValueError(f"{file} is not complete JSON ({error}): unpack the data set again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}: unpack the data set again")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no mapping file {file}: it comes with the data set, in its folder `mappings`"
        ) from error


@dataclass(frozen=True, kw_only=True)
class BorderCut:
    """Cut a border off an image before anything else is done to it.

    The images of ObjectNet have a red border of one pixel, by which their publication is recognised; the authors' own
    evaluation cuts 2.

    Args:
        pixels: at every side.
        then: what is done to the rest.

    Raises:
        ValueError: if `pixels` is negative; and for an image that is all border, when it is taken.
    """

    pixels: int = 2
    then: Treatment = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise ValueError(f"pixels must be at least 0, got {self.pixels}")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the values, and the steps in words."""
        inner = self.then.settings
        return {"border": self.pixels, **inner, "steps": f"cut {self.pixels} pixels at every side, {inner['steps']}"}

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image to a uint8 tensor."""
        return _Cut(self.pixels, self.then.transform())


@dataclass(frozen=True)
class _Cut:
    pixels: int
    then: Callable[[Any], Tensor]

    def __call__(self, image: Any) -> Tensor:
        width, height = image.size
        if min(width, height) <= 2 * self.pixels:
            raise ValueError(f"an image of {width} x {height} pixels has nothing inside a border of {self.pixels}")
        return self.then(image.crop((self.pixels, self.pixels, width - self.pixels, height - self.pixels)))
