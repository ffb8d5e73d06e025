"""Folders that hold a changed copy of a data set, without loss, and what was done beside it."""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from torch import Tensor

from robust_bench.datasets.picture import picture_of
from robust_bench.files import write_durably
from robust_bench.judge import SUITES
from robust_bench.shards import FINGERPRINT, Shards

Format = Literal["png", "npy"]
ABOUT = "perturb.json"
IMAGES = "images.jsonl"
KEPT = ".perturb"
FORMAT = "robust-perturb/1"
_WRITERS = 8  # threads; they mostly wait for the disk


def stored_size(folder: Path) -> int | None:
    """Give the side of the images of a copy in pixels, None for another folder.

    The images of a copy have the size that the model takes: they must not be resized again, see
    `robust_bench.preprocess.AsStored`.

    Raises:
        ValueError: if the copy's `perturb.json` is damaged.
    """
    file = folder / ABOUT
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            return None
        return int(found["data"]["preprocessing"]["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}): make the copy again") from error


def check_place(source: Path, out: Path, kept: str = KEPT) -> None:
    """Make sure that a copy of `source` may be written to `out`.

    Args:
        source: folder of the images.
        out: folder of the copy.
        kept: the hidden folder by whose fingerprint, its first file, a copy that was begun is recognised.

    Raises:
        ValueError: if one lies in the other, or `out` holds files that are no copy.
    """
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ValueError(
            f"the copy cannot be written to {out}, since one of it and {source} holds the other: choose another --out"
        )
    others = sorted({entry.name for entry in out.iterdir()} - {kept}) if out.is_dir() else []
    if others and not (out / kept / FINGERPRINT).is_file():  # in this order, since another process may begin just now
        raise ValueError(f"{out} holds other files, such as {others[0]}: choose a new or an empty folder for --out")


def copied_names(names: Iterable[str], ending: str) -> list[str]:
    """Name the copies of image files `<class>/<image>`: the same with another ending.

    Raises:
        ValueError: if two files would get the same name.

    Examples:
        >>> copied_names(["cat/1.JPEG", "dog/2.png"], "png")
        ['cat/1.png', 'dog/2.png']
    """
    taken: dict[str, str] = {}
    for name in names:
        copy = PurePosixPath(name).with_suffix(f".{ending}").as_posix()
        if copy in taken:
            raise ValueError(f"the copies of {taken[copy]} and {name} would both be {copy}: rename one of the images")
        taken[copy] = name
    return list(taken)


def encoded(image: Tensor, form: Format) -> bytes:
    """Give the content of an image's file.

    Args:
        image: for "png" grey levels, uint8 (3, H, W); for "npy" float32 (C, H, W).
        form: of the file.
    """
    buffer = io.BytesIO()
    if form == "png":
        picture_of(image).save(buffer, format="png")
    else:
        np.save(buffer, np.ascontiguousarray(image.numpy()))
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The files of a copy: `<class>/<image>`, and in a hidden folder what is known of each, in shards.

    What is known of a shard is written before its images, so that the folder says from its first file on whose it is.
    A shard is done when all its images are there as well.

    Args:
        folder: of the copy.
        names: of its images, relative to the folder, by their ids.
        form: of their files.
        shards: of the records.
    """

    folder: Path
    names: Sequence[str]
    form: Format
    shards: Shards

    def missing(self) -> set[int]:
        """The numbers of the shards that are not done."""
        present = set(self._present())
        return {
            shard
            for shard in range(self.shards.count)
            if any(self.names[id_] not in present for id_ in self.shards.ids(shard))
        } | set(self.shards.missing())

    def write(self, ids: Sequence[int], images: Tensor) -> None:
        """Write images durably."""

        def write(item: tuple[int, Tensor]) -> None:
            write_durably(self.folder / self.names[item[0]], encoded(item[1], self.form))

        with ThreadPoolExecutor(_WRITERS) as threads:
            list(threads.map(write, zip(ids, images, strict=True)))

    def sweep(self) -> None:
        """Remove what killed processes have left of files that they were writing, and of suites of attacks."""
        for file in self.folder.glob("*/.*.tmp"):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.shards.folder / SUITES, ignore_errors=True)

    def finish(self, lines: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        """Write what is known of every image, a line each, and at last what was done."""
        self.sweep()
        write_durably(self.folder / IMAGES, (_json(line).encode() + b"\n" for line in lines))
        write_durably(self.folder / ABOUT, _json({"format": FORMAT, **about}, indent=1) + "\n")

    def _present(self) -> Iterator[str]:
        """Name the images that are there."""
        for name in dict.fromkeys(PurePosixPath(name).parent.as_posix() for name in self.names):
            if (self.folder / name).is_dir():
                with os.scandir(self.folder / name) as entries:
                    yield from (f"{name}/{entry.name}" for entry in entries)


def _json(value: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
