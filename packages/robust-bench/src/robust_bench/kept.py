"""What a run folder keeps of every part of its evaluation, for those who read it afterwards."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robust_bench.answers import Answers, from_lines
from robust_bench.records import Seen, read_records
from robust_bench.result import Result, Row
from robust_bench.shards import EVALUATION, FINGERPRINT, RECORDS, Shards

EVALUATIONS = "evaluations"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One part of a run, e.g. "imagenet-c/fog-3".

    Args:
        name: of the part.
        folder: `RUN/evaluations/<name>`.
    """

    name: str
    folder: Path

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that its numbers depend on, and "images", how many it has.

        Raises:
            ValueError: if the file is damaged or of another version.
        """
        shards = Shards.found(self.folder)
        return {**shards.fingerprint, "images": shards.images}

    @property
    def finished(self) -> bool:
        """Whether all its images are there."""
        return (self.folder / RECORDS).is_file()

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The accuracy under each of its conditions, in their order.

        Raises:
            FileNotFoundError: if there is none yet.
            ValueError: if the file is damaged, or does not have one per condition.
        """
        file = self.folder / EVALUATION
        rows, conditions = Result.load(file).rows, self.fingerprint["conditions"]
        if len(rows) != len(conditions):
            raise ValueError(f"{file} has {len(rows)} rows for {len(conditions)} conditions: run it again to mend it")
        return rows

    def records(self) -> Iterator[Seen]:
        """Every image, in the order of their ids.

        Raises:
            FileNotFoundError: if the part is not finished.
            ValueError: if the file is damaged.
        """
        if not self.finished:
            raise FileNotFoundError(
                f"the part {self.name!r} in {self.folder} is not finished: give the command of the run again, or "
                "`robust-bench merge` after separate jobs"
            )
        yield from read_records(self.folder / RECORDS)

    def answers(self) -> tuple[Answers, ...]:
        """What the model said about all images, under each of its conditions.

        Raises:
            FileNotFoundError: if the part is not finished.
            ValueError: if a file is damaged.
        """
        conditions = [(row.condition, row.settings) for row in self.rows]
        return from_lines(self.rows[0].benchmark, conditions, self.records())


def kept(run: Path) -> dict[str, Kept]:
    """Find the parts of a run by name.

    Raises:
        FileNotFoundError: if there are none.
    """
    found = begun(run)
    if not found:
        raise FileNotFoundError(
            f"no evaluations in {run}: expected {run / EVALUATIONS / 'NAME' / FINGERPRINT}, as "
            f"`robust-bench run --out {run}` writes it"
        )
    return found


def begun(run: Path) -> dict[str, Kept]:
    """Find the parts of a run by name, none of which need be there."""
    root = run / EVALUATIONS
    folders = sorted(file.parent for file in root.rglob(FINGERPRINT))
    return {(name := each.relative_to(root).as_posix()): Kept(name=name, folder=each) for each in folders}
