"""One run: a model, several benchmarks, one result file."""

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from robust_bench import benchmarks
from robust_bench._checks import check_device
from robust_bench.benchmarks import AutoAttack, Benchmark, Sweep
from robust_bench.conditions import Clean
from robust_bench.evaluate import Interrupted, evaluate
from robust_bench.files import check_folder
from robust_bench.model_source import ModelSource
from robust_bench.preprocess import Preprocess, declared
from robust_bench.report.run_folder import RESULT_FILE
from robust_bench.result import Result, Row
from robust_bench.shards import EVALUATION, FINGERPRINT, Shards
from robust_bench.world import World, local_device, torchrun

EVALUATIONS = "evaluations"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `robust-bench run` does.

    Args:
        model: a name such as small_cnn_8, timm:resnet18, or package.module:factory.
        benchmarks: names from `robust-bench list`, as a list or joined by commas.
        out: folder for the result; result.json is written there.
        data: folder of images <class>/<image>, for the benchmarks that need one.
        weights: file of weights, .safetensors or a plain state dict.
        pretrained: load timm's published weights; by default done for timm: names without --weights.
        num_classes: number of logits; by default the data's classes, or the published weights' own.
        in_chans: channels of the images; by default the data's.
        name: the model's name in tables; by default that of the weights' folder, or the model.
        device: where to compute, e.g. cuda; by default a GPU if there is one.
        batch_size: images per batch.
        seed: of the attacks' and corruptions' random draws.
        workers: processes that read image files; by default up to 4.
        size: side of the square that the model takes, in pixels, for image folders; by default the model's own.
        progress: show a progress bar; by default on a terminal.
        shard_size: images whose records are written together; by default 512, or 64 for suites of attacks.
        shard: "i/n": do only the i-th of n parts, counted from 0, as one of n separate jobs; `robust-bench merge OUT`
            puts them together.
        attack: settings of the -pgd benchmarks.
        autoattack: settings of the -autoattack benchmarks.
    """

    model: str
    benchmarks: list[str] | str
    out: Path
    data: Path | None = None
    weights: Path | None = None
    pretrained: bool | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    name: str | None = None
    device: str | None = None
    batch_size: int = 128
    seed: int = 0
    workers: int | None = None
    size: int | None = None
    progress: bool | None = None
    shard_size: int | None = None
    shard: str | None = None
    attack: Sweep = field(default_factory=Sweep)
    autoattack: AutoAttack = field(default_factory=AutoAttack)

    def __call__(self) -> Result:
        """Evaluate and write `out/result.json`; the result comes back.

        A condition that several of the benchmarks share, such as the clean images, is measured once. What is finished
        lies in `out/evaluations/<benchmark>`, with the records of all images; the same run goes on from there. Under
        torchrun, the processes divide the work among themselves.

        Raises:
            Interrupted: at Ctrl-C; it carries the result so far.
            ValueError: if a name or a setting is wrong, or the benchmarks are of different data.
            FileNotFoundError: if the data or the weights are missing.
            NotADirectoryError: if `out` cannot be a folder.
            ModelError: if a factory of the user's fails, or the model cannot take the images.
        """
        names = _names(self.benchmarks)
        if len({benchmarks.dataset(name) for name in names}) > 1:
            raise ValueError(f"{', '.join(names)} are of different data: give each kind of data a run of its own")
        check_folder(self.out)
        with torchrun():
            return self._evaluate(names)

    def _evaluate(self, names: list[str]) -> Result:
        world = World.current()
        if self.shard is not None and world.together:
            raise ValueError(
                "torchrun divides the work by itself: leave --shard out, or start the jobs without torchrun"
            )
        if self.shard is not None:
            world = World.parse(self.shard)
        asked = check_device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        device = check_device(local_device(asked))
        first = benchmarks.load(names[0], self.data, attack=self.attack, autoattack=self.autoattack)
        source = ModelSource(
            spec=self.model,
            weights=self.weights,
            pretrained=self.pretrained,
            num_classes=self.num_classes,
            in_chans=self.in_chans,
        )
        model = source.build(num_classes=first.num_classes, in_chans=first.in_chans)
        preprocess = declared(model) or Preprocess()
        if self.size is not None:
            preprocess = dataclasses.replace(preprocess, size=self.size)
        settings = {"model": source.describe(model, self.out), "benchmarks": names}
        parts: dict[str, Benchmark] = {}
        for name in names:
            benchmark = benchmarks.load(
                name, self.data, preprocess=preprocess, attack=self.attack, autoattack=self.autoattack
            )
            parts |= {part.name: part for part in _parts(benchmark) if part.name not in parts}
        results: list[Result] = []
        for name, part in parts.items():
            try:
                found = evaluate(
                    model,
                    part,
                    name=self.name or _name(self.model, self.weights),
                    device=device,
                    batch_size=self.batch_size,
                    seed=self.seed,
                    workers=self._workers() if self.data else 0,
                    progress=False if world.together and world.rank else self.progress,
                    settings=settings,
                    out=self.out / EVALUATIONS / name,
                    shard_size=self.shard_size,
                    world=world,
                )
            except Interrupted as stop:
                so_far = [*results, *([] if stop.result is None else [stop.result])]
                raise Interrupted(join(so_far, ",".join(names)) if so_far else None) from stop
            results.append(found)
        result = join(results, ",".join(names))
        if world.size == 1 or (world.together and world.rank == 0):
            result.save(self.out / RESULT_FILE)
        return result

    def _workers(self) -> int:
        return min(4, os.cpu_count() or 1) if self.workers is None else self.workers


def merge(out: Path) -> Result:
    """Put the parts that separate jobs have left in a run folder together, and write `out/result.json`.

    Raises:
        FileNotFoundError: if there is no evaluation.
        ValueError: if shards are missing, or a file is damaged.
    """
    folders = {file.parent.name: file.parent for file in sorted((out / EVALUATIONS).glob(f"*/{FINGERPRINT}"))}
    if not folders:
        raise FileNotFoundError(
            f"no evaluations in {out}: `robust-bench run --shard i/n --out {out}` leaves them there"
        )
    found = {name: Result.load(folder / EVALUATION) for name, folder in folders.items()}
    names = max(found.values(), key=lambda result: result.created).settings["benchmarks"]  # of the last jobs
    wanted = dict.fromkeys(part for name in names for part in (benchmarks.dataset(name), name))
    results = []
    for name in wanted:
        if name in found:
            shards = Shards.found(folders[name])
            shards.merge()
            results.append(_counted(found[name], shards))
    result = join(results, ",".join(names))
    result.save(out / RESULT_FILE)
    return result


def _counted(result: Result, shards: Shards) -> Result:
    """The result of all shards, from one of some of them."""
    summaries = shards.summaries()
    rows = tuple(
        Row.accuracy(
            benchmark=row.benchmark,
            condition=row.condition,
            settings=row.settings,
            correct=sum(summary.correct[number] for summary in summaries),
            count=shards.images,
            seconds=sum(summary.seconds[number] for summary in summaries),
        )
        for number, row in enumerate(result.rows)
    )
    data = {
        name: {key: value for key, value in about.items() if key != "of"} | {"images": shards.images}
        for name, about in result.settings["data"].items()
    }
    return dataclasses.replace(result, rows=rows, settings={**result.settings, "data": data})


def join(results: list[Result], benchmark: str) -> Result:
    """Put the results of one model into one, whose `benchmark` says what was asked for.

    Raises:
        ValueError: if there are none.
    """
    if not results:
        raise ValueError("there is no result to join")
    data = {name: about for result in results for name, about in result.settings["data"].items()}
    return dataclasses.replace(
        results[-1],
        benchmark=benchmark,
        rows=tuple(row for result in results for row in result.rows),
        settings={**results[-1].settings, "data": data},
    )


def _parts(benchmark: Benchmark) -> list[Benchmark]:
    """The clean images under the name of their data set, which benchmarks share, and the rest under its own name."""
    clean = tuple(each for each in benchmark.conditions if isinstance(each, Clean))
    rest = tuple(each for each in benchmark.conditions if not isinstance(each, Clean))
    parts = [
        dataclasses.replace(benchmark, name=benchmarks.dataset(benchmark.name), conditions=clean),
        dataclasses.replace(benchmark, conditions=rest),
    ]
    return [part for part in parts if part.conditions]


def _names(benchmarks_asked: list[str] | str) -> list[str]:
    parts = re.split(r"[,\s]+", benchmarks_asked) if isinstance(benchmarks_asked, str) else benchmarks_asked
    names = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not names:
        raise ValueError(f"give at least one benchmark: {', '.join(benchmarks.names())}")
    return names


def _name(spec: str, weights: Path | None) -> str:
    return spec if weights is None else (weights.resolve().parent.name if weights.stem == "model" else weights.stem)
