"""The folder of a training run: its recipe, its versions, its records and what comes out."""

import contextlib
import csv
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_bench.files import write_durably
from robust_models import save_weights
from torch import nn

from robust_train import checkpoint
from robust_train.checkpoint import ResumeError
from robust_train.config import Recipe

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("robust_train")

# What differs between two runs of the same recipe and seed; everything else in the records is equal.
TIMES = ("seconds", "images_per_second")

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A folder with config.yaml, versions.json, metrics.jsonl, summary.csv, checkpoints and model.safetensors.

    Args:
        path: the folder; `locked` makes it.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The exported weights, for `robust_models.load_weights`."""
        return self.path / "model.safetensors"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and let no other process train in it meanwhile; the lock ends with the process, always.

        Raises:
            ResumeError: if another process trains in this folder.
            OSError: if the folder cannot be made or written to; it says so.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("a")
        except OSError as error:
            raise type(error)(f"the run folder {self.path} cannot be made or written to: {error.strerror}") from error
        with stream:
            try:
                if fcntl is not None:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ResumeError(f"another process trains in {self.path}: wait for it, or choose a folder") from error
            except OSError as error:
                logger.warning(f"{self.path} cannot be locked ({error.strerror}): start no second process there")
            yield

    def describe(self, recipe: Recipe, versions: Mapping[str, str]) -> None:
        """Write `config.yaml` and `versions.json`: what the run is, and what it was made with last."""
        write_durably(self.path / "config.yaml", recipe.to_yaml())
        write_durably(self.path / "versions.json", json.dumps(versions, indent=2) + "\n")

    def append(self, record: Record) -> None:
        """Add a line to `metrics.jsonl`; it has reached the disk when this returns."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def keep(self, update: int, history: Sequence[Record]) -> None:
        """Bring `metrics.jsonl` and `summary.csv` to the state of a checkpoint.

        Broken lines go, and those after its update or of epochs that it does not have; epochs that lack their line get
        it again.

        Args:
            update: of the checkpoint.
            history: its records of epochs.
        """
        file = self.path / "metrics.jsonl"
        kept: list[Record] = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break  # the process was killed while it wrote this line
            if record["update"] > update:
                break
            if record["kind"] != "epoch" or record in history:
                kept.append(record)
        if missing := [record for record in history if record not in kept]:
            logger.warning(
                f"{file} lacked the lines of {len(missing)} epochs: they are written again from the checkpoint; lines "
                "of windows that are missing too are lost"
            )
            kept = sorted([*kept, *missing], key=lambda record: (record["update"], record["kind"] == "epoch"))
        write_durably(file, "".join(json.dumps(record) + "\n" for record in kept))
        if history:
            self.write_summary(history)

    def save(self, kind: str, update: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, see `checkpoint.save`."""
        checkpoint.save(self.checkpoints, kind, update, state)

    def best(self, update: int) -> dict[str, Any]:
        """The checkpoint of the best evaluation, after this update; never another one.

        Raises:
            ResumeError: if it is missing or damaged.
        """
        if found := checkpoint.of_update(self.checkpoints, update):
            return found[1]
        raise ResumeError(
            f"the best checkpoint, {self.checkpoints / f'best-{update:08d}-*.pt'}, is missing or damaged and nothing "
            "is exported: the last weights are whole but not the best; train in a new folder to have the best again"
        )

    def prune(self) -> None:
        """Remove old checkpoints, see `checkpoint.prune`."""
        checkpoint.prune(self.checkpoints)

    def export(self, model: nn.Module) -> None:
        """Write the weights for `robust_models.load_weights`."""
        save_weights(model, self.weights)

    def write_summary(self, history: Sequence[Record]) -> None:
        """Write `summary.csv`: one line per epoch."""
        names = list(dict.fromkeys(name for record in history for name in record if name != "kind"))
        text = io.StringIO()
        table = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        write_durably(self.path / "summary.csv", text.getvalue())


class Onlooker(RunFolder):
    """The folder of a run for processes that only read there: the first one writes."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing: the first process holds the lock."""
        yield

    def describe(self, recipe: Recipe, versions: Mapping[str, str]) -> None:
        """Nothing."""

    def append(self, record: Record) -> None:
        """Nothing."""

    def keep(self, update: int, history: Sequence[Record]) -> None:
        """Nothing."""

    def write_summary(self, history: Sequence[Record]) -> None:
        """Nothing."""

    def save(self, kind: str, update: int, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def prune(self) -> None:
        """Nothing."""

    def export(self, model: nn.Module) -> None:
        """Nothing."""


def open_run(out: str | os.PathLike[str], *, writes: bool = True) -> RunFolder:
    """The folder `out` as one of a run; nothing is written yet, and never by a process that does not write.

    Raises:
        NotADirectoryError: if it is a file.
    """
    run = RunFolder(Path(out)) if writes else Onlooker(Path(out))
    if run.path.exists() and not run.path.is_dir():
        raise NotADirectoryError(f"{run.path} is a file: the run needs a folder of its own")
    return run
