"""The engine: a model's accuracy over a data set, clean and under conditions."""

import datetime
import functools
import itertools
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from robust_bench import benchmarks
from robust_bench._checks import Model, check_device, check_pair
from robust_bench._distribution import DISTRIBUTION
from robust_bench.benchmarks import Benchmark
from robust_bench.conditions import Clean, Condition, Suite, identity
from robust_bench.fingerprint import data_hash, model_hash
from robust_bench.judge import SUITES, Batch, Judge
from robust_bench.lending import device_of, ready, undisturbed
from robust_bench.progress import Bar, bar
from robust_bench.reading import all_batches, check_order, count_images, numbered_batches
from robust_bench.result import Result
from robust_bench.shards import EVALUATION, Shards
from robust_bench.tally import Tally
from robust_bench.world import World

_PATIENCE = 60  # seconds for the shards of other machines to be seen

Data = str | Benchmark | DataLoader[Any] | Dataset[Any]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation; `result` is what was found until then, None if that is nothing."""

    def __init__(self, result: Result | None, *told: object) -> None:
        super().__init__(*told)
        self.result = result


def evaluate(
    model: Model,
    data: Data,
    *,
    conditions: Sequence[Condition] | None = None,
    name: str | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 128,
    seed: int = 0,
    workers: int = 0,
    progress: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    shard_size: int | None = None,
    world: World | None = None,
) -> Result:
    """Measure a model's accuracy on `data` under every condition.

    An image's id is its position in the data; with the seed it fixes every random number of attacks and corruptions,
    so the result does not depend on the batch size. Under an attack an image counts as right when it is right both
    when clean and under the attack. The model is evaluated in eval mode, in float32 without autocast, and gets its
    modes, buffers and device back afterwards, also after an error or Ctrl-C. The global random states of torch, Python
    and NumPy stay as they were, even if the model or the data draw from them.

    With `out`, every finished shard of the images is written there, image by image, and a second call computes only
    what is missing: a process that is killed loses at most the shards that it was at. Under torch.distributed the
    ranks divide the shards among themselves, and all get the same result, that of one rank. So all must call it, unless
    one evaluates alone with `world=World()`. Without `out` every process evaluates all images.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K), with its normalisation inside.
        data: the name of a benchmark that needs no files, a `Benchmark`, a data set of (image, label) pairs, or a
            loader of such batches that goes through all of them in order.
        conditions: what is done to the images; None means those of the benchmark, and `(Clean(),)` for other data.
        name: the model's name in tables; None means its class.
        device: where to compute; None means where the model's parameters are.
        batch_size: images per batch (a loader keeps its own).
        seed: of the attacks' and corruptions' random draws.
        workers: processes that read a data set's files; 0 reads in this one. An IterableDataset gets at most one.
        progress: show a progress bar on the standard error stream; None shows it on a terminal only.
        settings: further JSON values for the result's settings, e.g. how to build the model.
        out: folder that keeps what is finished; None keeps nothing. It takes a data set with a length.
        shard_size: images that are written together; None means 512, or 64 where there is a suite of attacks.
        world: which part of the work this process has; None means all, or that of its rank in torch.distributed.
            Separate jobs get `World(rank=i, size=n)` each, and the result of what is finished so far.

    Returns:
        A `Result` with one row per condition.

    Raises:
        TypeError: if the data or the model's output are of the wrong kind.
        ModelError: if the model fails on its first images; its own error is the cause.
        ValueError: if images leave [0, 1], labels have no logit, logits are not finite, the loader does not go
            through its data in order, there is no image, or `out` holds another evaluation; the message says what
            to do.
        Interrupted: at Ctrl-C; it carries the result so far.

    Examples:
        >>> from robust_bench.datasets import digits
        >>> result = evaluate(lambda images: images.mean(dim=(2, 3)).repeat(1, 10), digits("test"), name="constant")
        >>> result.rows[0].correct, result.rows[0].count
        (45, 450)
    """
    _check_count("batch_size", batch_size)
    found = benchmarks.load(data) if isinstance(data, str) else data
    asked, label, source, about = _open(found)
    if conditions is None:
        conditions = found.conditions if isinstance(found, Benchmark) else (Clean(),)
    conditions = tuple(conditions)
    if not conditions:
        raise ValueError("give at least one condition, e.g. conditions=(Clean(),)")
    where = device_of(model) if device is None else check_device(device)
    shards = None
    if out is not None:
        usual = 64 if any(isinstance(condition, Suite) for condition in conditions) else 512
        size = usual if shard_size is None else _check_count("shard_size", shard_size)
        shards = _shards(Path(out), model, source, {"benchmark": asked, "data": about, "seed": seed}, conditions, size)
        shards.check()
    elif shard_size is not None or world is not None:
        raise ValueError(
            "only an evaluation with a folder `out` can be divided: give out, or leave shard_size and world"
        )
    world = world or World.current()
    tally = Tally(conditions)

    def result(tally: Tally, total: int | None) -> Result:
        return Result(
            model=type(model).__name__ if name is None else name,
            benchmark=asked,
            seed=seed,
            rows=tally.rows(label),
            versions=versions(),
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            settings={
                "data": {label: about | {"images": tally.images, **({} if total is None else {"of": total})}},
                "batch_size": batch_size,
                "device": _describe(where),
                **(settings or {}),
            },
        )

    images, groups = count_images(source), []
    if shards is not None:
        wanted = batch_size * _batches_at_once(conditions) // shards.size
        at_once = max(1, min(wanted, -(-shards.count // world.size)))
        groups = shards.groups(at_once, world)
        images = sum(len(shards.ids(shard)) for group in groups for shard in group)
    try:
        with (
            undisturbed(where),
            ready(model, where),
            torch.autocast(where.type, enabled=False),
            bar(label, None if images is None else images * len(conditions), progress) as shown,
        ):
            judge = Judge(
                model=model,
                conditions=conditions,
                seed=seed,
                device=where,
                classes=found.num_classes if isinstance(found, Benchmark) else None,
                notes=None if shards is None else shards.folder,
            )
            if shards is None:
                _all(judge, source, batch_size, workers, tally, shown)
            else:
                _missing(judge, source, batch_size, workers, tally, shown, shards, groups)
        if shards is not None:
            return _finished(shards, world, conditions, result)
    except KeyboardInterrupt as error:
        kept = tally if shards is None else Tally.of(conditions, shards.summaries())
        so_far = kept if kept.images else tally  # of a shard that was not finished, if of none that was
        raise Interrupted(result(so_far, count_images(source)) if any(so_far.counts) else None, *error.args) from error
    if not tally.images:
        raise ValueError(f"{label} holds no images")
    return result(tally, None)


def _finished(
    shards: Shards,
    world: World,
    conditions: tuple[Condition, ...],
    result: Callable[[Tally, int | None], Result],
) -> Result:
    """The result of all shards that are there when this process and those that it is connected with have done theirs.

    Raises:
        FileNotFoundError: if ranks do not see the shards of the others.
    """
    world.wait()
    for _ in range(_PATIENCE if world.together else 0):
        if not shards.missing():
            break
        time.sleep(1)  # a network file system may tell late
    complete = not shards.missing()
    if world.together and not complete:
        raise FileNotFoundError(
            f"rank {world.rank} finds {len(shards.finished())} of {shards.count} shards in {shards.folder}: "
            "it must lie on a file system that all machines share"
        )
    ours = result(Tally.of(conditions, shards.summaries()), None if complete else shards.images)
    if world.rank == 0 or not world.together:
        if ours.rows:
            ours.save(shards.folder / EVALUATION)
        if complete:
            shards.merge()
            shutil.rmtree(shards.folder / SUITES, ignore_errors=True)  # what killed processes have left
    world.wait()
    return ours


@functools.cache
def versions() -> Mapping[str, str]:
    """Give the versions that a result depends on."""
    names = ("torch", "timm", "numpy", "scikit-learn", "pillow", "robust-attacks", "robust-models", DISTRIBUTION)
    found = {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
    return MappingProxyType(found)


def _open(data: object) -> tuple[str, str, DataLoader[Any] | Dataset[Any], dict[str, Any]]:
    """Find what was asked for, the data set's name, the source of batches, and a description of the data.

    Raises:
        ValueError: if a loader does not go through all its data in order.
        TypeError: for another kind of data.
    """
    match data:
        case Benchmark():
            return data.name, data.dataset or data.name, data.data, dict(data.settings)
        case DataLoader():
            check_order(data)
            name = type(data.dataset).__name__
            return name, name, data, {"dataset": name}
        case Dataset():
            name = type(data).__name__
            return name, name, data, {"dataset": name}
    raise TypeError(
        "data must be the name of a benchmark, a Benchmark, a torch data set or a DataLoader, "
        f"got {type(data).__name__}: wrap tensors with torch.utils.data.TensorDataset(images, labels)"
    )


def _all(
    judge: Judge, source: DataLoader[Any] | Dataset[Any], batch_size: int, workers: int, tally: Tally, shown: Bar
) -> None:
    """Judge all images."""

    def numbered() -> Iterator[Batch]:
        first = 0
        for batch in all_batches(source, batch_size, workers):
            images, labels = check_pair(batch)
            yield images, labels, torch.arange(first, first + len(images))
            first += len(images)

    batches = (batch for batch in numbered() if len(batch[0]))
    while group := list(itertools.islice(batches, _batches_at_once(judge.conditions))):
        judge.records(group, tally.teller(shown))


def _missing(
    judge: Judge,
    source: Any,
    batch_size: int,
    workers: int,
    tally: Tally,
    shown: Bar,
    shards: Shards,
    groups: list[list[int]],
) -> None:
    """Judge the images of groups of shards, and write these."""
    ids = [[id_ for shard in group for id_ in shards.ids(shard)] for group in groups]
    parts = [[some[start : start + batch_size] for start in range(0, len(some), batch_size)] for some in ids]
    read = numbered_batches(source, [part for some in parts for part in some], workers)
    for group, some, part in zip(groups, ids, parts, strict=True):
        batches = ((*check_pair(next(read)), torch.tensor(numbers)) for numbers in part)
        labels, records = judge.records(batches, tally.teller(shown))
        start = 0
        for shard in group:
            rows = slice(start, start + len(shards.ids(shard)))
            shards.write(shard, labels[rows].tolist(), [each.select(rows) for each in records])
            start = rows.stop
        judge.forget(some)


def _batches_at_once(conditions: tuple[Condition, ...]) -> int:
    """A suite of attacks gets several, so that its batch seldom runs empty."""
    return 8 if any(isinstance(condition, Suite) for condition in conditions) else 1


def _shards(
    folder: Path, model: Model, source: Any, settings: dict[str, Any], conditions: tuple[Condition, ...], size: int
) -> Shards:
    """The shards of an evaluation in its folder.

    Raises:
        TypeError: if the data have no length, or are a loader.
    """
    images = count_images(source)
    if images is None or isinstance(source, IterableDataset):
        raise TypeError(
            "an evaluation that is kept in a folder needs a data set with a length and numbered items, got "
            f"{type(source).__name__}: pass the data set itself, or leave `out` out"
        )
    fingerprint = {
        **settings,
        "data": {key: value for key, value in settings["data"].items() if key != "path"},
        "data_sha256": data_hash(source),
        "model_sha256": model_hash(model),
        "conditions": [identity(condition) for condition in conditions],
        "versions": dict(versions()),
    }
    return Shards(folder=folder, fingerprint=fingerprint, images=images, size=size)


def _check_count(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
