"""WebDataset: tar files of which neighbouring members, such as 0001.jpg and 0001.cls, make a sample."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import ENDINGS
from robust_bench.datasets.tar_file import Member, TarReader, tar_members
from robust_bench.datasets.tar_images import Labelled, TarImages
from robust_bench.datasets.tar_shards import find_shards

_IMAGES = tuple(ending[1:] for ending in ENDINGS)


def webdataset(
    data: str | Path, pattern: str = "", *, class_map: ClassMap | None = None, preprocess: Treatment
) -> TarImages:
    """Open tar files in the layout of WebDataset as a data set with numbered items.

    The readers of timm and of the package webdataset stream tar files from their beginning, and shards, resumed and
    divided evaluations need any image by its number, so this one looks up where every image lies.

    Aizman, Maltby & Breuel, "High Performance I/O For Large Scale Deep Learning", IEEE Big Data 2019, arXiv:2001.01858.
    A member's name is a key up to the first dot behind the last slash, and a field after it; members of the same key in
    a tar file are a sample. It has one image (`jpg`, `png` and the like) and a label: in `cls`, a number or the name of
    a class, else under "label" in `json`. Other fields, and samples that have neither, are not looked at.

    Args:
        data: a folder with tar files, one tar file, or a pattern of tar files.
        pattern: of the tar files in the folder; see `find_shards`.
        class_map: the label of every class, as it is written in the samples, numbers included; None takes numbers for
            the labels.
        preprocess: what is done to the images.

    Raises:
        FileNotFoundError: if there are no tar files.
        ValueError: if a tar file is damaged; if a sample has no image or several, no label or one that is unknown, or
            the same field twice. The message names the tar file and the key.
    """
    shards = find_shards(Path(data), pattern)
    reader = TarReader()
    try:
        return TarImages(
            shards,
            (image for number, shard in enumerate(shards) for image in _labelled(number, shard, reader, class_map)),
            num_classes=None if class_map is None else class_map.num_classes,
            preprocess=preprocess,
        )
    finally:
        reader.close()


def _labelled(number: int, shard: Path, reader: TarReader, class_map: ClassMap | None) -> Iterator[Labelled]:
    """The images of a tar file, in the order in which their samples begin."""
    for key, sample in _samples(shard).items():
        where = f"{shard}/{key}"
        images = [sample[field] for field in _IMAGES if field in sample]
        if not images and "cls" not in sample:
            continue
        if len(images) != 1:
            raise ValueError(
                f"the sample {where} has {', '.join(sample)}: expected one image, among {', '.join(_IMAGES)}"
            )
        if "cls" in sample:
            name = _in_text(_content(reader, shard, sample["cls"]), where)
        elif "json" in sample:
            name = _in_json(_content(reader, shard, sample["json"]), where)
        else:
            raise ValueError(f"the sample {where} has no label: expected {key}.cls, or {key}.json with a label")
        yield Labelled(
            number, images[0], _number(name, where) if class_map is None else class_map.label(name, of=where)
        )


def _content(reader: TarReader, shard: Path, member: Member) -> bytes:
    return reader.read(shard, member.offset, member.size)


def _samples(shard: Path) -> dict[str, dict[str, Member]]:
    """The fields of all samples of a tar file."""
    found: dict[str, dict[str, Member]] = defaultdict(dict)
    for member in tar_members(shard):
        parts = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]+)", member.name)
        if parts is None or re.match(r"__[^/]*__($|/)", member.name):  # hidden or without an ending; what is not data
            continue
        key, field = parts[1], parts[2].lower()
        if field in found[key]:
            raise ValueError(f"the tar file {shard} has {member.name} twice: keys of samples must differ")
        found[key][field] = member
    return found


def _in_text(written: bytes, where: str) -> str:
    try:
        return written.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"the label of {where} in .cls is no text ({error})") from error


def _in_json(written: bytes, where: str) -> str:
    try:
        found = json.loads(written)
    except ValueError as error:
        raise ValueError(f"{where}.json cannot be read ({error})") from error
    label = found.get("label") if isinstance(found, dict) else None
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(f'{where}.json must have a number or the name of a class under "label", got {label!r}')
    return str(label).strip()


def _number(name: str, where: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", name):
        return int(name)
    if re.fullmatch(r"-[0-9]+", name):
        raise ValueError(f"the label of {where} is {name}, but labels count from 0: leave out images without one")
    raise ValueError(
        f"the label of {where} is {name!r}, no number: give a class map, which has the label of every name"
    )
