"""Evaluation: models' accuracy over data sets, clean and under conditions, and the scores of benchmarks."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from robust_bench import benchmarks
from robust_bench._checks import Model, check_device
from robust_bench.answers import Answers
from robust_bench.conditions import Condition
from robust_bench.engine import Entrant, Outcome, Settings, Stopped, evaluate_part
from robust_bench.lending import device_of
from robust_bench.listening import listening, remember, remembered
from robust_bench.part import Benchmark, Part
from robust_bench.reading import check_order
from robust_bench.result import Result, Row
from robust_bench.shards import EVALUATION
from robust_bench.versions import versions
from robust_bench.world import World

Data = str | Benchmark | DataLoader[Any] | Dataset[Any]
OnError = Literal["stop", "skip"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation; `result` is what was found until then, None if that is nothing.

    Where several models were evaluated, `results` has what was found of each.
    """

    def __init__(self, results: Sequence[Result], *told: object) -> None:
        super().__init__(*told)
        self.results = tuple(results)
        self.result = self.results[0] if self.results else None


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
    on_error: OnError = "stop",
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
        conditions: what is done to the images; None means those of the benchmark, and `(Clean(),)` for other data. They
            replace those of a benchmark, which must then be of one data set.
        name: the model's name in tables; None means its class.
        device: where to compute; None means where the model's parameters are.
        batch_size: images per batch (a loader keeps its own).
        seed: of the attacks' and corruptions' random draws.
        workers: processes that read a data set's files; 0 reads in this one. An IterableDataset gets at most one.
        progress: show a progress bar on the standard error stream; None shows it on a terminal only.
        settings: further JSON values for the result's settings, e.g. how to build the model.
        out: folder that keeps what is finished, each part of a benchmark of several in a folder of its own; None keeps
            nothing. It takes a data set with a length.
        shard_size: images that are written together; None means 512, or 64 where there is a suite of attacks.
        world: which part of the work this process has; None means all, or that of its rank in torch.distributed.
            Separate jobs get `World(rank=i, size=n)` each, and the result of what is finished so far.
        on_error: what to do when an image cannot be read: "stop" with an error that names it, or "skip" it, which the
            result counts; this takes an `out`.

    Returns:
        A `Result` with one row per condition, and the scores of the benchmark.

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
    benchmark = _benchmark(data, conditions)
    if out is None and (shard_size is not None or (world is not None and world != World())):
        raise ValueError(
            "only an evaluation with a folder `out` can be divided: give out, or leave shard_size and world"
        )
    if out is None and on_error == "skip":
        raise ValueError("on_error='skip' needs a folder `out`, whose records say which images were skipped: give out")

    def folder(part: Part) -> Path | None:
        return None if out is None else Path(out) / part.name if len(benchmark.parts) > 1 else Path(out)

    entrant = Entrant(
        model=model, name=type(model).__name__ if name is None else name, folder=folder, settings=dict(settings or {})
    )
    where = device_of(model) if device is None else check_device(device)
    return evaluate_models(
        [entrant],
        [benchmark],
        device=where,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        progress=progress,
        shard_size=shard_size,
        world=World() if out is None else (world or World.current()),
        on_error=on_error,
    )[0]


def evaluate_models(
    entrants: Sequence[Entrant],
    wanted: Sequence[Benchmark],
    *,
    device: torch.device,
    batch_size: int,
    seed: int,
    workers: int,
    progress: bool | None,
    shard_size: int | None,
    world: World,
    on_error: OnError,
) -> list[Result]:
    """Evaluate models side by side, so that every image is read once; parts that benchmarks share are evaluated once.

    The arguments are those of `evaluate`.

    Raises:
        Interrupted: at Ctrl-C.
        ValueError: for a number below 1, or what `evaluate` refuses.
    """
    for what, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error must be 'stop' or 'skip', got {on_error!r}")
    asked = Settings(
        device=device,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        progress=progress,
        shard_size=shard_size,
        world=world,
        skip=on_error == "skip",
        keep=any(benchmark.scores is not None for benchmark in wanted),
    )
    with listening() as told:
        return _evaluate(entrants, wanted, asked, told)


def _evaluate(
    entrants: Sequence[Entrant], wanted: Sequence[Benchmark], asked: Settings, told: list[str]
) -> list[Result]:
    """Evaluate part after part; `told` is where warnings are kept."""
    reports = [_Report(entrant, wanted, asked, told) for entrant in entrants]
    try:
        _evaluate_parts(entrants, wanted, asked, told, reports)
        return [report.result() for report in reports]
    except KeyboardInterrupt as stop:  # also while something is hashed or scored
        raise Interrupted([report.partial() for report in reports if report.rows], *stop.args) from stop


def _evaluate_parts(
    entrants: Sequence[Entrant],
    wanted: Sequence[Benchmark],
    asked: Settings,
    told: list[str],
    reports: Sequence["_Report"],
) -> None:
    world = asked.world
    parts = {part.name: part for benchmark in wanted for part in benchmark.parts}
    for part in parts.values():
        try:
            outcomes = evaluate_part(part, entrants, asked)
        except Stopped as stop:
            for report, outcome in zip(reports, stop.outcomes, strict=True):
                report.add(part, outcome)
            raise
        for report, entrant, outcome in zip(reports, entrants, outcomes, strict=True):
            report.add(part, outcome)
            folder = entrant.folder(part)
            if folder is not None and outcome.rows and (world.rank == 0 or not world.together):
                told += [text for text in remembered(folder) if text not in told]
                remember(folder, told)
                report.of(part, outcome).save(folder / EVALUATION)


class _Report:
    """What was found of one model."""

    def __init__(self, entrant: Entrant, wanted: Sequence[Benchmark], settings: Settings, told: Sequence[str]) -> None:
        self.entrant, self.wanted, self.settings, self.told = entrant, wanted, settings, told
        self.rows: list[Row] = []
        self.data: dict[str, dict[str, Any]] = {}
        self.found: dict[str, tuple[Answers, ...]] = {}

    def add(self, part: Part, outcome: Outcome) -> None:
        """Take in what was found on a part."""
        self.rows += outcome.rows if part.accuracy else ()
        known = self.data.get(part.label)
        self.data[part.label] = outcome.data if known is None else merged_data(known, outcome.data)
        if outcome.answers is not None:
            self.found[part.name] = outcome.answers

    def of(self, part: Part, outcome: Outcome) -> Result:
        """The result of one part alone, with the share of right images even where that is no accuracy."""
        found = self._result(outcome.rows, {part.label: outcome.data})
        return replace(found, settings={**found.settings, "accuracy": part.accuracy})

    def partial(self) -> Result:
        """The rows so far."""
        return self._result(self.rows, self.data)

    def result(self) -> Result:
        """The result so far, with the scores for which all that they need is there."""
        scores = [row for each in self.wanted if each.scores is not None for row in each.scores(self.found)]
        return self._result((*self.rows, *without_repeats(scores)), self.data)

    def _result(self, rows: Sequence[Row], data: Mapping[str, Any]) -> Result:
        return Result(
            model=self.entrant.name,
            benchmark=",".join(benchmark.name for benchmark in self.wanted),
            seed=self.settings.seed,
            rows=tuple(rows),
            versions=versions(),
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            settings={
                "data": data,
                "batch_size": self.settings.batch_size,
                "device": _describe(self.settings.device),
                **({"warnings": list(self.told)} if self.told else {}),
                **self.entrant.settings,
            },
        )


def without_repeats(rows: Sequence[Row]) -> list[Row]:
    """Rows but for those that are equal to an earlier one: benchmarks may share scores as they share parts."""
    return [row for place, row in enumerate(rows) if row not in rows[:place]]


def merged_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What the data of two parts of one benchmark have in common; skipped images add up."""
    common = {key: value for key, value in one.items() if other.get(key) == value}
    damaged = list(dict.fromkeys((*one.get("damaged", ()), *other.get("damaged", ()))))[:10]
    skipped = one.get("skipped", 0), other.get("skipped", 0)
    if any(skipped):  # the same images under other conditions are the same damage
        common |= {"skipped": max(skipped) if one.get("sha256") == other.get("sha256") else sum(skipped)}
        common |= {"damaged": damaged}
    if "of" in one or "of" in other:  # one of them is not complete
        whole = max(about.get("of", about["images"]) for about in (one, other))
        return common | {"images": min(one["images"], other["images"]), "of": whole}
    return common | {"images": max(one["images"], other["images"])}


def _benchmark(data: object, conditions: Sequence[Condition] | None) -> Benchmark:
    """What is to be evaluated.

    Raises:
        ValueError: if a loader does not go through all its data in order, or there are no conditions.
        TypeError: for another kind of data.
    """
    if conditions is not None and not conditions:
        raise ValueError("give at least one condition, e.g. conditions=(Clean(),)")
    match data:
        case str():
            found = benchmarks.load(data)
        case Benchmark():
            found = data
        case DataLoader() | Dataset():
            source: Any = data
            if isinstance(data, DataLoader):
                check_order(data)
                source = data.dataset
            name = type(source).__name__
            part = Part(name=name, data=data, num_classes=0, settings={"dataset": name})  # type: ignore[arg-type]
            found = Benchmark(name=name, parts=(part,))
        case _:
            raise TypeError(
                "data must be the name of a benchmark, a Benchmark, a torch data set or a DataLoader, "
                f"got {type(data).__name__}: wrap tensors with torch.utils.data.TensorDataset(images, labels)"
            )
    if conditions is None:
        return found
    first = found.parts[0]
    if any(part.data is not first.data for part in found.parts):
        raise ValueError(f"{found.name} has several data sets with conditions of their own: leave conditions out")
    return Benchmark(name=found.name, parts=(replace(first, conditions=tuple(conditions)),))


def _describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
