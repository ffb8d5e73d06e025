"""Which label every class of a user's data has for the model."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PICKLES = (".pickle", ".pkl", ".pt", ".pth")
_HOW = (
    "write a text file with one class name a line, in the order of the labels, or with lines of a name and a label "
    "(between them a tab, or a space where names have none)"
)


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """Labels by class name; several names may share a label.

    There are as many classes as the largest label says. Names for which there are no images, and labels without a name,
    are fine: the classes of a model remain its classes where the data has only some of them.

    Args:
        labels: of every class name, from 0 on.
        source: the file, for messages.
        sha256: of the file.

    Raises:
        ValueError: if it is empty, or a label is negative.

    Examples:
        >>> animals = ClassMap(labels={"tabby": 0, "siamese": 0, "beagle": 1})
        >>> animals.label("siamese", of="cats/siamese"), animals.num_classes
        (0, 2)
    """

    labels: Mapping[str, int]
    source: str = "the class map"
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError(f"{self.source} names no class: {_HOW}")
        if negative := [name for name, label in self.labels.items() if label < 0]:
            raise ValueError(
                f"labels count from 0, but {self.source} gives {negative[0]!r} the label {self.labels[negative[0]]}"
            )

    @property
    def num_classes(self) -> int:
        """The largest label and one."""
        return max(self.labels.values()) + 1

    def label(self, name: str, *, of: str) -> int:
        """Look a class up.

        Args:
            name: of the class.
            of: what belongs to this class, for the message.

        Raises:
            ValueError: if it is not in the map.
        """
        if name not in self.labels:
            known = ", ".join(map(repr, list(self.labels)[:3]))
            raise ValueError(
                f"the class {name!r} of {of} is not in {self.source}, which begins with {known}: add a line for it, or "
                "take it out of the data"
            )
        return self.labels[name]


def read_class_map(path: str | Path) -> ClassMap:
    r"""Read a class map from a text file, in one of two forms.

    One class name a line, in the order of the labels, which is timm's form; or a name and a label in every line, with a
    tab between them, or with a space where the names have none.

    Args:
        path: of the file, UTF-8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a pickle, which could run anything, or no text; if it mixes the two forms, leaves a line
            empty in between, or gives a name twice.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no class map {file}: {_HOW}")
    content = file.read_bytes()
    if file.suffix.lower() in _PICKLES or content.startswith(b"\x80"):
        raise ValueError(f"the class map {file} is a pickle, which could run any code when it is read: {_HOW}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the class map {file} is no UTF-8 text ({error}): {_HOW}") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    labels: dict[str, int] = {}
    for number, (name, label) in enumerate(_pairs(lines, file), start=1):
        if not name:
            raise ValueError(f"line {number} of the class map {file} has no class name: {_HOW}")
        if name in labels:
            raise ValueError(f"line {number} of the class map {file} has the class {name!r} for the second time")
        labels[name] = label
    return ClassMap(labels=labels, source=f"the class map {file}", sha256=hashlib.sha256(content).hexdigest())


def _pairs(lines: list[str], file: Path) -> list[tuple[str, int]]:
    """Names and labels of the lines.

    Raises:
        ValueError: if some lines have a label, and others none.
    """
    if lines == [""]:
        return []
    found = [re.fullmatch(r"(.*\S)\s*\t\s*(-?\d+)|(\S+)\s+(-?\d+)", line) for line in lines]
    without = [number for number, match in enumerate(found, start=1) if match is None]
    if len(without) == len(lines):
        return [(name, label) for label, name in enumerate(lines)]
    if without:
        with_label = next(number for number, match in enumerate(found, start=1) if match is not None)
        raise ValueError(
            f"line {with_label} of the class map {file}, {lines[with_label - 1]!r}, reads as a name and a label, line "
            f"{without[0]}, {lines[without[0] - 1]!r}, does not: {_HOW}"
        )
    return [(match[1] or match[3], int(match[2] or match[4])) for match in found if match is not None]
