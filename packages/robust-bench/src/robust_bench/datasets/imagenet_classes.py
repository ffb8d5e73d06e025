"""The classes of ImageNet that a data set has, by the names of its folders."""

import functools
import hashlib
import pkgutil
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_bench.datasets.listing import subfolders


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Name the 1000 classes of ILSVRC 2012 by their WordNet ids, sorted: the rank of one is its index.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv:1409.0575; the list is
    timm's.
    """
    from timm.data.imagenet_info import ImageNetInfo

    known: Any = ImageNetInfo()
    return tuple(sorted(known.label_names()))


@functools.cache
def _ranks() -> Mapping[str, int]:
    return {wnid: rank for rank, wnid in enumerate(imagenet_wnids())}


def imagenet_indices(wnids: Collection[str]) -> tuple[int, ...]:
    """Give the index of every wnid among the 1000.

    Raises:
        ValueError: if one is not among them.

    Examples:
        >>> imagenet_indices(["n01440764", "n15075141"])
        (0, 999)
    """
    if strangers := [wnid for wnid in wnids if wnid not in _ranks()]:
        raise ValueError(f"{_some(strangers)} not among the 1000 classes of ImageNet")
    return tuple(_ranks()[wnid] for wnid in wnids)


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """Classes, known by the checksum of their names, so that a missing folder cannot silently shrink the set.

    Args:
        name: of the data set that has these classes, e.g. "ImageNet-A".
        count: how many there are.
        sha256: of their wnids, sorted and joined by newlines.
    """

    name: str
    count: int
    sha256: str

    def labels(self, path: Path) -> dict[str, int]:
        """Find the class folders, whose sorted order is that of the labels.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if class folders are missing or do not belong there; the first ones are named.
        """
        found = subfolders(path)
        if _digest(found) != self.sha256:
            raise ValueError(
                f"{path} does not hold the {self.count} class folders of {self.name}: {self._reason(found)}"
            )
        return {wnid: label for label, wnid in enumerate(found)}

    def fits(self, path: Path) -> bool:
        """Tell whether a folder has exactly these class folders."""
        return _digest(subfolders(path)) == self.sha256

    def _reason(self, found: Collection[str]) -> str:
        """Say what is wrong, by name where the names of the set are known."""
        known = self._known()
        expected = imagenet_wnids() if known is None else known
        missing = [] if known is None else [wnid for wnid in known if wnid not in found]
        extra = [name for name in found if name not in expected]
        told = [
            f"{_some(names)} {words}" for names, words in ((missing, "missing"), (extra, "not among them")) if names
        ]
        reasons = "; ".join(told) or "the checksum of their names differs"
        return f"found {len(found)}; {reasons}. Was it unpacked completely, and is it this data set?"

    def _known(self) -> tuple[str, ...] | None:
        """The names of the set where timm's wheel has them, else None."""
        try:
            listed = pkgutil.get_data("timm.data", f"_info/{self.name.lower().replace('-', '_')}_synsets.txt")
        except OSError:
            return None
        names = () if listed is None else tuple(sorted(listed.decode().split()))
        return names if _digest(names) == self.sha256 else None


def _digest(names: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _some(names: Collection[str]) -> str:
    """Name the first three, with the verb for all."""
    first = ", ".join(sorted(names)[:3])
    if len(names) > 3:
        return f"{first} and {len(names) - 3} more are"
    return f"{first} {'is' if len(names) == 1 else 'are'}"


IMAGENET = ClassSet(
    name="ImageNet", count=1000, sha256="385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
)
IMAGENET_A = ClassSet(
    name="ImageNet-A", count=200, sha256="f6aa4b23244554d9b864fd715ae20048f6a9686388911b2dfbf1ada01bf0f520"
)
IMAGENET_O = ClassSet(
    name="ImageNet-O", count=200, sha256="39f8e64e8f89efad8fd9615c061abc61695ffbd27793e87199181cb4fb340083"
)
IMAGENET_R = ClassSet(
    name="ImageNet-R", count=200, sha256="e19a59d84e3746fafd34d2ccf6ae604a44e9a0500a596f343c878a89e30ce624"
)


def numbered_labels(path: Path, count: int) -> dict[str, int]:
    """Find class folders that are named by their numbers, padded with zeros or not, as those of ImageNetV2.

    Sorting such names as text (0, 1, 10, 100 ...) would give wrong labels.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if they are not the numbers 0..count - 1, each once; the first ones that are missing, or do not
            belong there, are named.
    """
    found = subfolders(path)
    labels = {name: int(name) for name in found if name.isascii() and name.isdecimal()}
    times = Counter(labels.values())
    missing = [f"{number:04d}" for number in range(count) if number not in times]
    extra = [name for name in found if name not in labels or labels[name] >= count]
    twice = [name for name in labels if times[labels[name]] > 1]
    told = [
        f"{_some(names)} {words}"
        for names, words in ((missing, "missing"), (extra, "not among them"), (twice, "the same numbers"))
        if names
    ]
    if told:
        raise ValueError(
            f"{path} does not hold the class folders 0 to {count - 1}: found {len(found)}; {'; '.join(told)}. Was it "
            "unpacked completely?"
        )
    return labels


def numbered_fit(path: Path, count: int) -> bool:
    """Tell whether a folder has exactly the class folders 0..count - 1."""
    try:
        numbered_labels(path, count)
    except ValueError:
        return False
    return True
