"""The finished parts of an evaluation in a folder, so that nothing that is done is done again."""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_bench.files import create_durably, write_durably
from robust_bench.records import Records, Seen, lines, read_damaged, read_records
from robust_bench.result import plain

FINGERPRINT = "fingerprint.json"
RECORDS = "records.jsonl.gz"
EVALUATION = "evaluation.json"
_FORMAT = "robust-shards/1"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The first line of a shard.

    Args:
        shard: its number, from 0.
        images: how many it has.
        skipped: how many more could not be read.
        correct: for every condition how many of them were right.
        seconds: for every condition how long that took.
    """

    shard: int
    images: int
    skipped: int
    correct: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The parts of one evaluation: shard k has the images k * size up to (k + 1) * size.

    A shard is one file of compressed JSON lines, `shards/000012.jsonl.gz`, written durably: after a crash it is there
    whole or not at all. Its first line is a `Summary`; then follows a line per image.

    Args:
        folder: of the evaluation; made when needed.
        fingerprint: everything that the result depends on, as JSON values.
        images: how many the data set has.
        size: images of a shard; the last may have fewer.
        what: the folder holds, for messages.
        fixed_size: whether another `size` makes it another evaluation, as where a shard is a file.
    """

    folder: Path
    fingerprint: Mapping[str, Any]
    images: int
    size: int
    what: str = "evaluation"
    fixed_size: bool = True

    @classmethod
    def found(cls, folder: Path) -> "Shards":
        """The shards that lie in a folder.

        Raises:
            FileNotFoundError: if there is no evaluation.
            ValueError: if it is damaged, or of another version.
        """
        known = _read(folder / FINGERPRINT)
        if known.pop("format", None) != _FORMAT:
            raise ValueError(f"{folder / FINGERPRINT} is not of the format {_FORMAT}: upgrade robust-bench")
        return cls(folder=folder, images=known.pop("images"), size=known.pop("shard_size"), fingerprint=known)

    def check(self) -> None:
        """Make sure that what lies in the folder, if anything, belongs to the same evaluation.

        Raises:
            ValueError: if it belongs to another one; what differs is named with both values.
        """
        file = self.folder / FINGERPRINT
        if not file.exists():
            if self.finished():
                raise ValueError(
                    f"{self.folder} has shards but no {FINGERPRINT}, so nobody knows whose they are: remove the folder"
                )
            return
        if (theirs := _read(file)) != (mine := self._document()):
            raise ValueError(
                f"{self.folder} holds another {self.what}: {'; '.join(_differences(theirs, mine))}. "
                "Choose another folder to begin anew, or give the settings of the first run to go on"
            )

    def begin(self) -> None:
        """Make the folder the place of this evaluation.

        Raises:
            ValueError: if it belongs to another one, which another process may have begun meanwhile.
        """
        if not (self.folder / FINGERPRINT).exists() and not self.finished():
            create_durably(self.folder / FINGERPRINT, json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n")
        self.check()

    def records(self) -> Iterator[Seen]:
        """Every image of the finished shards, in order.

        Raises:
            ValueError: if a file is damaged; it is named.
        """
        for shard in sorted(self.finished()):
            yield from read_records(self._file(shard))

    def damaged(self) -> list[str]:
        """Why images were skipped."""
        return [reason for shard in sorted(self.finished()) for reason in read_damaged(self._file(shard))]

    @property
    def count(self) -> int:
        """How many shards there are in all."""
        return -(-self.images // self.size)

    def ids(self, shard: int) -> range:
        """The images of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.images))

    def finished(self) -> set[int]:
        """The numbers of the shards that are there."""
        names = (file.name.partition(".")[0] for file in self._folder.glob("[0-9]*.jsonl.gz"))
        return {int(name) for name in names if name.isdecimal()}

    def missing(self) -> list[int]:
        """The numbers of the others."""
        finished = self.finished()
        return [shard for shard in range(self.count) if shard not in finished]

    def write(
        self,
        shard: int,
        ids: Sequence[int],
        labels: Sequence[int],
        conditions: Sequence[Records],
        *,
        names: Sequence[str] | None = None,
        damaged: Mapping[int, str] | None = None,
    ) -> None:
        """Keep what was found out about the images of a shard; the first makes the folder.

        Args:
            shard: its number.
            ids: of its images that could be read, ascending.
            labels: of these.
            conditions: the records of these.
            names: the files of these.
            damaged: for every other image why it could not be read.

        Raises:
            ValueError: if the folder belongs to another evaluation, which another process may have begun meanwhile, or
                these are not the images of the shard.
        """
        self.begin()
        damaged = damaged or {}
        if sorted((*ids, *damaged)) != list(self.ids(shard)):
            raise ValueError(f"shard {shard} has the images {self.ids(shard)}, got {len(ids)} others")
        summary = {
            "shard": shard,
            "images": len(ids),
            "skipped": len(damaged),
            "correct": [int(records.right.sum()) for records in conditions],
            "seconds": [round(records.seconds, 6) for records in conditions],
            "columns": [records.columns for records in conditions],
        }
        text = json.dumps(summary, separators=(",", ":")) + "\n" + lines(ids, labels, conditions, names)
        for number, reason in damaged.items():
            text += json.dumps({"id": number, "error": reason}, separators=(",", ":"), ensure_ascii=False) + "\n"
        write_durably(self._file(shard), gzip.compress(text.encode(), compresslevel=6, mtime=0))

    def summaries(self) -> list[Summary]:
        """The first lines of all finished shards, in order.

        Raises:
            ValueError: if a file is damaged; it is named.
        """
        return [self._summary(shard) for shard in sorted(self.finished())]

    def merge(self, summaries: Sequence[Summary] | None = None) -> Path:
        """Put all shards into one file of records, durably; the shards stay.

        Args:
            summaries: of all shards, where they have been read.

        Raises:
            ValueError: if shards are missing.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.folder} has {self.count - len(missing)} of {self.count} shards, shard {missing[0]} is missing: "
                "run the evaluation again with the same settings, it computes only what is missing"
            )
        images = sum(summary.images + summary.skipped for summary in summaries or self.summaries())
        if images != self.images:
            raise ValueError(f"the shards of {self.folder} have {images} images in all, not {self.images}: remove it")
        return write_durably(self.folder / RECORDS, (self._file(shard).read_bytes() for shard in range(self.count)))

    def _document(self) -> Any:
        size = {"shard_size": self.size} if self.fixed_size else {}
        return plain({"format": _FORMAT, "images": self.images, **size, **self.fingerprint}, "fingerprint")

    @property
    def _folder(self) -> Path:
        return self.folder / "shards"

    def _file(self, shard: int) -> Path:
        return self._folder / f"{shard:06d}.jsonl.gz"

    def _summary(self, shard: int) -> Summary:
        file = self._file(shard)
        try:
            with gzip.open(file, "rt", encoding="utf-8") as text:
                found = json.loads(text.readline())
            return Summary(
                shard=found["shard"],
                images=found["images"],
                skipped=found["skipped"],
                correct=tuple(found["correct"]),
                seconds=tuple(found["seconds"]),
            )
        except (EOFError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error}): remove it, and its images are evaluated again") from error


def grouped(shards: Iterable[int], at_once: int) -> dict[int, list[int]]:
    """Put shards into numbered groups of up to `at_once` neighbours.

    A group does not depend on which other shards are asked for, so that a process that goes on finds what another knew
    of one.

    Examples:
        >>> grouped({0, 2, 3, 8}, 4)
        {0: [0, 2, 3], 2: [8]}
    """
    groups: dict[int, list[int]] = {}
    for shard in sorted(shards):
        groups.setdefault(shard // at_once, []).append(shard)
    return groups


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"no evaluation in {file.parent}: `robust-bench run` makes its folder")
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): choose another folder, or remove this folder") from error
    return found


def _differences(theirs: Any, mine: Any, where: str = "") -> list[str]:
    """Say where two JSON values differ, down to the innermost."""
    if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        theirs, mine = dict(enumerate(theirs)), dict(enumerate(mine))
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        return [
            difference
            for key in dict.fromkeys((*theirs, *mine))
            for difference in _differences(theirs.get(key), mine.get(key), f"{where}.{key}" if where else str(key))
        ]
    if theirs == mine:
        return []
    return [f"{where} was {json.dumps(theirs, ensure_ascii=False)}, is {json.dumps(mine, ensure_ascii=False)}"]
