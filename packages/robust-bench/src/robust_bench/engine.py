"""The engine: some models' answers about one data set, under conditions, in memory or in shards."""

import contextlib
import functools
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from robust_bench._checks import Model, check_pair
from robust_bench.answers import Answers, from_records, from_shards
from robust_bench.conditions import Suite, identity
from robust_bench.fingerprint import data_hash, model_hash
from robust_bench.judge import SUITES, Batch, Judge
from robust_bench.lending import ready, undisturbed
from robust_bench.part import Part
from robust_bench.progress import Bar, bar
from robust_bench.reading import Read, all_batches, count_images, numbered_batches
from robust_bench.records import Records
from robust_bench.result import Row
from robust_bench.shards import Shards, grouped
from robust_bench.tally import Tally
from robust_bench.versions import versions
from robust_bench.world import World

_PATIENCE = 60  # seconds for the shards of other machines to be seen
_FRAMES = 32  # about as many as the published sequences have


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a part is evaluated; see `robust_bench.evaluate`.

    Args:
        device: where to compute.
        batch_size: images per batch.
        seed: of random draws.
        workers: processes that read.
        progress: whether to show a bar; None shows it on a terminal.
        shard_size: images per shard; None means the usual.
        world: which part of the work this process has.
        skip: whether images that cannot be read are skipped.
        keep: whether the answers about all images are given back.
    """

    device: torch.device
    batch_size: int
    seed: int
    workers: int
    progress: bool | None
    shard_size: int | None
    world: World
    skip: bool
    keep: bool


@dataclass(kw_only=True)
class Entrant:
    """One of the models that are evaluated side by side.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        name: in tables.
        folder: where what is known of a part is kept; it gives None to keep nothing.
        settings: further JSON values for the result's settings.
    """

    model: Model
    name: str
    folder: Callable[[Part], Path | None]
    settings: dict[str, Any]

    @functools.cached_property
    def sha256(self) -> str:
        """Of the model.

        Raises:
            TypeError: if it cannot be recognised again.
        """
        return model_hash(self.model)


@dataclass(kw_only=True)
class Outcome:
    """What was found of one model on a part, complete or not.

    Args:
        rows: one per condition that was begun.
        data: of what they are: the part's settings, the number of images, and how many were skipped.
        answers: about every image, per condition, where they are kept; None otherwise, or if incomplete.
    """

    rows: tuple[Row, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    answers: tuple[Answers, ...] | None = None


class Stopped(KeyboardInterrupt):
    """Ctrl-C; `outcomes` is what was found until then, one for each model."""

    def __init__(self, outcomes: list[Outcome], *told: object) -> None:
        super().__init__(*told)
        self.outcomes = outcomes


def evaluate_part(part: Part, entrants: Sequence[Entrant], settings: Settings) -> list[Outcome]:
    """Judge all images of a part by all models, reading every image once.

    Raises:
        Stopped: at Ctrl-C.
        ValueError: if there are no images, or a folder holds another evaluation.
        FileNotFoundError: if ranks do not see each other's shards.
    """
    tasks = [_Task(part, entrant, settings) for entrant in entrants]
    for task in tasks:
        if task.shards is not None:
            task.shards.check()
    groups = _groups(tasks, settings)
    images = count_images(part.data)
    if groups is not None:
        images = sum(task.lacking(group) for task in tasks for group in groups)
    elif images is not None:
        images *= len(tasks)
    try:
        with contextlib.ExitStack() as lent:
            lent.enter_context(undisturbed(settings.device))
            for task in tasks:
                lent.enter_context(ready(task.judge.model, settings.device))
            lent.enter_context(torch.autocast(settings.device.type, enabled=False))
            total = None if images is None else images * len(part.conditions)
            shown = lent.enter_context(bar(part.label, total, settings.progress))
            if groups is None:
                _all(tasks, part.data, settings, shown)
            else:
                _missing(tasks, part.data, settings, shown, groups)
        return [task.finished() for task in tasks]
    except KeyboardInterrupt as error:
        raise Stopped([task.so_far() for task in tasks], *error.args) from error


class _Task:
    """A model with its judge, its counts and its shards."""

    def __init__(self, part: Part, entrant: Entrant, settings: Settings) -> None:
        self.part, self.settings = part, settings
        self.tally = Tally(part.conditions)
        folder = entrant.folder(part)
        self.shards = None if folder is None else _shards(part, entrant, folder, settings)
        self.missing = set() if self.shards is None else set(self.shards.missing())
        self.judge = Judge(
            model=entrant.model,
            conditions=part.conditions,
            seed=settings.seed,
            device=settings.device,
            classes=part.num_classes or None,
            answer=part.answer,
            also=part.also,
            notes=folder,
        )
        self.kept: list[tuple[torch.Tensor, list[Records]]] = []

    def lacking(self, group: Sequence[int]) -> int:
        """How many images of a group of shards it has not judged."""
        assert self.shards is not None
        return sum(len(self.shards.ids(shard)) for shard in group if shard in self.missing)

    def finished(self) -> Outcome:
        """What it knows when this process and those that it is connected with have done their work."""
        settings, shards = self.settings, self.shards
        if shards is None:
            if not self.tally.images:
                raise ValueError(f"{self.part.label} holds no images")
            answers = None
            if self.kept:
                answers = from_records(self.part, *_in_a_row(self.kept, len(self.part.conditions)))
            return self._outcome(self.tally, answers=answers, complete=True)
        settings.world.wait()
        for _ in range(_PATIENCE if settings.world.together else 0):
            if not shards.missing():
                break
            time.sleep(1)  # a network file system may tell late
        complete = not shards.missing()
        if settings.world.together and not complete:
            raise FileNotFoundError(
                f"rank {settings.world.rank} finds {len(shards.finished())} of {shards.count} shards in "
                f"{shards.folder}: it must lie on a file system that all machines share"
            )
        summaries = shards.summaries()
        if complete and not sum(summary.images for summary in summaries):
            raise ValueError(f"{self.part.label} holds no image that can be read")
        if complete and (settings.world.rank == 0 or not settings.world.together):
            shards.merge(summaries)
            shutil.rmtree(shards.folder / SUITES, ignore_errors=True)  # what killed processes have left
        settings.world.wait()
        skipped = sum(summary.skipped for summary in summaries)
        return self._outcome(
            Tally.of(self.part.conditions, summaries),
            skipped=skipped,
            damaged=shards.damaged() if skipped else [],
            answers=from_shards(self.part, shards) if complete and settings.keep else None,
            complete=complete,
        )

    def so_far(self) -> Outcome:
        """What it knows after Ctrl-C: of finished shards, else of images whose shard was not finished."""
        kept = self.tally if self.shards is None else Tally.of(self.part.conditions, self.shards.summaries())
        return self._outcome(kept if kept.images else self.tally, complete=False)

    def _outcome(
        self,
        tally: Tally,
        *,
        complete: bool,
        skipped: int = 0,
        damaged: Sequence[str] = (),
        answers: tuple[Answers, ...] | None = None,
    ) -> Outcome:
        data = dict(self.part.settings) | {"images": tally.images}
        if self.part.answer is not None:
            data["answer"] = self.part.answer.text
        if self.shards is not None:
            data["sha256"] = self.shards.fingerprint["data_sha256"]
        if not complete:
            total = count_images(self.part.data)
            data |= {} if total is None else {"of": total}
        if skipped:
            data |= {"skipped": skipped, "damaged": list(damaged[:10])}
        return Outcome(rows=tally.rows(self.part.label), data=data, answers=answers)


def _all(tasks: Sequence[_Task], source: DataLoader[Any] | Dataset[Any], settings: Settings, shown: Bar) -> None:
    """Judge all images."""

    def numbered() -> Iterator[Batch]:
        first = 0
        for batch in all_batches(source, _items_at_once(tasks[0].part, settings), settings.workers):
            images, labels = check_pair(batch)
            yield images, labels, torch.arange(first, first + len(images))
            first += len(images)

    batches = (batch for batch in numbered() if len(batch[0]))
    while group := list(itertools.islice(batches, _batches_at_once(tasks[0].part))):
        for task in tasks:
            found = task.judge.records(group, task.tally.teller(shown))
            if settings.keep:
                task.kept.append(found)


def _groups(tasks: Sequence[_Task], settings: Settings) -> list[list[int]] | None:
    """This process's share of the shards that any model misses, in groups; None without folders."""
    first = tasks[0].shards
    if first is None:
        return None
    wanted = settings.batch_size * _batches_at_once(tasks[0].part) // first.size
    at_once = max(1, min(wanted, -(-first.count // settings.world.size)))
    groups = grouped(set().union(*(task.missing for task in tasks)), at_once)
    return [groups[number] for number in settings.world.share(list(groups)) if number in groups]


def _missing(
    tasks: Sequence[_Task], source: Any, settings: Settings, shown: Bar, groups: Sequence[Sequence[int]]
) -> None:
    """Judge the images of groups of shards, and write these."""
    first = tasks[0].shards
    assert first is not None
    ids = [[id_ for shard in group for id_ in first.ids(shard)] for group in groups]
    size = _items_at_once(tasks[0].part, settings)
    parts = [[some[start : start + size] for start in range(0, len(some), size)] for some in ids]
    read = numbered_batches(source, [part for some in parts for part in some], settings.workers, skip=settings.skip)
    for group, part in zip(groups, parts, strict=True):
        pending = [task for task in tasks if task.lacking(group)]
        kept: list[int] = []
        damaged: dict[int, str] = {}
        found = _side_by_side(pending, _sorted_out(itertools.islice(read, len(part)), kept, damaged), shown)
        names = _names(source, kept)
        for task, (labels, records) in zip(pending, found, strict=True):
            _write(task, group, kept, labels, records, names, damaged)
            task.judge.forget(kept)


def _sorted_out(read: Iterable[Read], kept: list[int], damaged: dict[int, str]) -> Iterator[Batch]:
    """The images of batches; their ids go to `kept`, and what was damaged goes to `damaged`."""
    for batch in read:
        damaged.update(batch.damaged)
        kept.extend(batch.ids)
        if batch.ids:
            yield *check_pair(batch.pairs), torch.tensor(batch.ids)


def _side_by_side(
    tasks: Sequence[_Task], batches: Iterator[Batch], shown: Bar
) -> list[tuple[torch.Tensor, list[Records]]]:
    """Every task's records of the same batches, each of which all see in turn; suites of attacks need all at once."""
    if len(tasks) == 1 or any(isinstance(condition, Suite) for condition in tasks[0].part.conditions):
        shared = batches if len(tasks) == 1 else list(batches)
        return [task.judge.records(shared, task.tally.teller(shown)) for task in tasks]
    found: list[list[tuple[torch.Tensor, list[Records]]]] = [[] for _ in tasks]
    for batch in batches:
        for mine, task in zip(found, tasks, strict=True):
            mine.append(task.judge.records([batch], task.tally.teller(shown)))
    return [_in_a_row(mine, len(tasks[0].part.conditions)) for mine in found]


def _in_a_row(parts: list[tuple[torch.Tensor, list[Records]]], conditions: int) -> tuple[torch.Tensor, list[Records]]:
    """The records of batches, one after another."""
    labels = [labels for labels, _ in parts]
    columns = [[records[number] for _, records in parts] for number in range(conditions)]
    empty = torch.empty(0, dtype=torch.int64)
    return torch.cat(labels) if labels else empty, [Records.joined(column) for column in columns]


def _write(
    task: _Task,
    group: Sequence[int],
    ids: Sequence[int],
    labels: torch.Tensor,
    records: Sequence[Records],
    names: Sequence[str] | None,
    damaged: Mapping[int, str],
) -> None:
    assert task.shards is not None
    start = 0
    for shard in group:
        span = task.shards.ids(shard)
        end = start + sum(1 for id_ in itertools.islice(ids, start, None) if id_ in span)
        if shard in task.missing:
            rows = slice(start, end)
            task.shards.write(
                shard,
                ids[rows],
                labels[rows].tolist(),
                [each.select(rows) for each in records],
                names=None if names is None else names[rows],
                damaged={id_: reason for id_, reason in damaged.items() if id_ in span},
            )
        start = end


def _names(source: object, ids: Sequence[int]) -> list[str] | None:
    name: Callable[[int], str] | None = getattr(source, "filename", None)
    return None if name is None else [str(name(id_)) for id_ in ids]


def _items_at_once(part: Part, settings: Settings) -> int:
    """Images per batch; of sequences of frames as many as come near to that number of frames."""
    return max(1, settings.batch_size // _frames(part))


def _frames(part: Part) -> int:
    """About how many images one item holds."""
    return _FRAMES if any(getattr(condition, "dimensions", 4) == 5 for condition in part.conditions) else 1


def _batches_at_once(part: Part) -> int:
    """A suite of attacks gets several, so that its batch seldom runs empty."""
    return 8 if any(isinstance(condition, Suite) for condition in part.conditions) else 1


def _shards(part: Part, entrant: Entrant, folder: Path, settings: Settings) -> Shards:
    """The shards of an evaluation in its folder.

    Raises:
        TypeError: if the data have no length, or are a loader.
    """
    source = part.data
    images = count_images(source)
    if images is None or isinstance(source, IterableDataset):
        raise TypeError(
            "an evaluation that is kept in a folder needs a data set with a length and numbered items, got "
            f"{type(source).__name__}: pass the data set itself, or leave `out` out"
        )
    usual = 64 if any(isinstance(condition, Suite) for condition in part.conditions) else 512 // _frames(part)
    fingerprint = {
        "part": part.name,
        "data": {key: value for key, value in part.settings.items() if key != "path"},
        "seed": settings.seed,
        "data_sha256": data_hash(source),
        "model_sha256": entrant.sha256,
        "answer": None if part.answer is None else repr(part.answer),
        "also": list(part.also),
        "conditions": [identity(condition) for condition in part.conditions],
        "versions": dict(versions()),
    }
    return Shards(folder=folder, fingerprint=fingerprint, images=images, size=settings.shard_size or usual)
