"""One run: some models, several benchmarks, a result file for each model."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from robust_bench import benchmarks
from robust_bench._checks import check_device
from robust_bench.benchmarks import Analyses, AutoAttack, Benchmark, Sweep
from robust_bench.command import command_of
from robust_bench.cost import multiply_adds
from robust_bench.engine import Entrant
from robust_bench.evaluate import Interrupted, OnError, evaluate_models
from robust_bench.files import check_folder
from robust_bench.kept import EVALUATIONS, begun
from robust_bench.model_list import KEYS, read_models
from robust_bench.model_source import ModelSource
from robust_bench.part import image_shape
from robust_bench.preprocess import Preprocess, declared
from robust_bench.report.run_folder import RESULT_FILE
from robust_bench.result import Result
from robust_bench.world import World, local_device, torchrun


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `robust-bench run` does.

    Args:
        benchmarks: names from `robust-bench list`, as a list or joined by commas.
        out: folder for the result; result.json is written there.
        model: a name such as small_cnn_8, timm:resnet18, zoo:light/..., or package.module:factory.
        models: in place of model, a YAML list of several, each with model, and weights, pretrained, num_classes,
            in_chans and name as here; they share the reading of the images, and each has a folder below `out`.
        data: folder of a data set, or of several, each in a folder of its own; `robust-bench list` says how they look.
        weights: file of weights, .safetensors or a plain state dict.
        pretrained: load timm's published weights; by default done for timm: names without --weights.
        num_classes: number of logits; by default the data's classes, or the published weights' own.
        in_chans: channels of the images; by default the data's.
        name: the model's name in tables; by default that of the weights' folder, or the model.
        device: where to compute, e.g. cuda; by default a GPU if there is one.
        batch_size: images per batch.
        seed: of the attacks' and corruptions' random draws.
        workers: processes that read image files; by default up to 4.
        size: side of the square that the model takes, in pixels; by default the model's own for image files that are
            resized anyway, and that of the files for those that have their final size.
        test_size: take the larger size, and its crop, at which timm evaluates a model where it declares one.
        progress: show a progress bar; by default on a terminal.
        shard_size: images whose records are written together; by default 512, or 64 for suites of attacks.
        shard: "i/n": do only the i-th of n parts, counted from 0, as one of n separate jobs; `robust-bench merge OUT`
            puts them together.
        on_error: what to do when an image cannot be read: stop, or skip it, which the result counts.
        aggregation: how 1000 classes become the 16 that people know, mean or max.
        ids: file with the names of the images of a subset, one a line.
        reader: for images of your own: wds or wds/PATTERN for WebDataset shards, tar, or hfds/NAME for a Hugging Face
            data set; by default class folders.
        class_map: for images of your own: a text file of class names, one a line in the order of the model's classes,
            or of lines with a name and a label.
        split: of a Hugging Face data set.
        attack: settings of the -pgd benchmarks.
        autoattack: settings of the -autoattack benchmarks.
        analyses: settings of -steps, -effectiveness, -convergence, -transfer, -semantic, -occlusion and -attention.
    """

    benchmarks: list[str] | str
    out: Path
    model: str | None = None
    models: Path | None = None
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
    test_size: bool = False
    progress: bool | None = None
    shard_size: int | None = None
    shard: str | None = None
    on_error: OnError = "stop"
    aggregation: Literal["mean", "max"] = "mean"
    ids: Path | None = None
    reader: str = ""
    class_map: Path | None = None
    split: str = "validation"
    attack: Sweep = field(default_factory=Sweep)
    autoattack: AutoAttack = field(default_factory=AutoAttack)
    analyses: Analyses = field(default_factory=Analyses)

    def __call__(self) -> tuple[Result, ...]:
        """Evaluate and write `out/result.json`; the results come back, one for each model.

        What several of the benchmarks share, such as the clean images, is measured once. What is finished lies in
        `out/evaluations/<part>`, with the records of all images; the same run goes on from there. Under torchrun, the
        processes divide the work among themselves. Of several models, each has a folder `out/<name>`.

        Raises:
            Interrupted: at Ctrl-C; it carries the results so far.
            ValueError: if a name or a setting is wrong.
            FileNotFoundError: if the data or the weights are missing.
            NotADirectoryError: if `out` cannot be a folder.
            ModelError: if a factory of the user's fails, or the model cannot take the images.
        """
        names = _names(self.benchmarks)
        if self.data is not None and all(benchmarks.entry(name).layout is None for name in names):
            raise ValueError(
                f"{', '.join(names)} bring their own images, so {str(self.data)!r} is in vain: leave --data out"
            )
        check_folder(self.out)
        with torchrun():
            return self._evaluate(names)

    def _evaluate(self, names: list[str]) -> tuple[Result, ...]:
        world = World.asked(self.shard)
        asked = check_device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        device = check_device(local_device(asked))
        results: dict[str, Result] = {}
        for entrants, wanted in self._divided(names):
            try:
                found = evaluate_models(
                    entrants,
                    wanted,
                    device=device,
                    batch_size=self.batch_size,
                    seed=self.seed,
                    workers=self._workers() if self.data or self.reader else 0,
                    progress=False if world.together and world.rank else self.progress,
                    shard_size=self.shard_size,
                    world=world,
                    on_error=self.on_error,
                )
            except Interrupted as stop:
                raise Interrupted([*results.values(), *stop.results]) from stop
            results |= {result.model: result for result in found}
        if world.size == 1 or (world.together and world.rank == 0):
            for name, result in results.items():
                result.save(self._folder(name) / RESULT_FILE)
        return tuple(results.values())

    def _divided(self, names: list[str]) -> list[tuple[list[Entrant], list[Benchmark]]]:
        """The models, those that see the same images together, each group with its benchmarks."""
        groups: dict[Preprocess, list[Entrant]] = {}
        first = self._load(names[0], None).parts[0]
        for source, name in self._sources():
            model = source.build(
                num_classes=first.num_classes if first.answer is None else first.answer.logits, in_chans=first.in_chans
            )
            preprocess = declared(model, test_size=self.test_size) or Preprocess()
            if self.size is not None:
                preprocess = dataclasses.replace(preprocess, size=self.size)
            groups.setdefault(preprocess, []).append(self._entrant(model, source, name, names))
        divided = []
        self._check_folders([entrant for entrants in groups.values() for entrant in entrants])
        for preprocess, entrants in groups.items():
            wanted = [self._load(name, preprocess) for name in names]
            parts = list(dict.fromkeys(part.name for benchmark in wanted for part in benchmark.parts))
            shape = image_shape(wanted[0].parts[0])
            for entrant in entrants:
                assert isinstance(entrant.model, nn.Module)
                about = dict(entrant.settings["model"]) | {"multiply_adds": multiply_adds(entrant.model, shape)}
                entrant.settings |= {"model": about, "parts": parts}
            divided.append((entrants, wanted))
        return divided

    def _check_folders(self, entrants: Sequence[Entrant]) -> None:
        """Refuse a run folder of another model, whose parts would be taken for those of this one.

        Raises:
            ValueError: if there is one.
        """
        for entrant in entrants:
            for name, part in begun(self._folder(entrant.name)).items():
                theirs = part.fingerprint.get("model_sha256")
                if theirs != entrant.sha256:
                    raise ValueError(
                        f"{part.folder} holds {name} of another model (sha256 {theirs}, {entrant.name} has "
                        f"{entrant.sha256}): give every model a folder of its own"
                    )

    def _entrant(self, model: nn.Module, source: ModelSource, name: str, names: list[str]) -> Entrant:
        folder = self._folder(name)
        return Entrant(
            model=model,
            name=name,
            folder=lambda part: folder / EVALUATIONS / part.name,
            settings={
                "model": source.describe(model, folder),
                "benchmarks": names,
                "command": self._command(source, name),
            },
        )

    def _sources(self) -> list[tuple[ModelSource, str]]:
        """What models there are, with their names.

        Raises:
            ValueError: if there is none, or two have the same name.
        """
        if (self.model is None) == (self.models is None):
            raise ValueError("give --model NAME, or --models LIST.yaml for several")
        if self.models is None:
            assert self.model is not None
            given = [{key: getattr(self, key) for key in KEYS}]
        else:
            if vain := [key for key in KEYS[1:] if getattr(self, key) is not None]:
                raise ValueError(f"--models says everything about the models: move --{vain[0]} into {self.models}")
            given = read_models(self.models)
        found = []
        for about in given:
            name = about.pop("name", None)
            spec = str(about.pop("model"))
            weights = about.pop("weights", None)
            path = None if weights is None else Path(weights)
            found.append((ModelSource(spec=spec, weights=path, **about), str(name or _name(spec, path))))
        names = [name for _, name in found]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"two models have the name {twice[0]!r}: give each a name of its own")
        unfit = ("", ".", "..", EVALUATIONS)
        if bad := [name for name in names if self.models and (Path(name).name != name or name in unfit)]:
            raise ValueError(f"the model's name {bad[0]!r} cannot be a folder: give it another name")
        return found

    def _folder(self, name: str) -> Path:
        return self.out if self.models is None else self.out / name

    def _load(self, name: str, preprocess: Preprocess | None) -> Benchmark:
        return benchmarks.load(
            name,
            None if benchmarks.entry(name).layout is None else self.data,
            preprocess=preprocess,
            size=self.size,
            attack=self.attack,
            autoattack=self.autoattack,
            analyses=self.analyses,
            aggregation=self.aggregation,
            ids=self.ids,
            reader=self.reader,
            class_map=self.class_map,
            split=self.split,
        )

    def _workers(self) -> int:
        return min(4, os.cpu_count() or 1) if self.workers is None else self.workers

    def _command(self, source: ModelSource, name: str) -> dict[str, Any]:
        """Everything that this run was asked for, as one would write it into a file for --config."""
        out = command_of(self, without=("models", "progress", "shard"))
        weights = None if source.weights is None else str(source.weights)
        mine = {"model": source.spec, "weights": weights, "pretrained": source.pretrained, "name": name}
        return out | {key: value for key, value in mine.items() if value is not None}


def _names(benchmarks_asked: list[str] | str) -> list[str]:
    parts = re.split(r"[,\s]+", benchmarks_asked) if isinstance(benchmarks_asked, str) else benchmarks_asked
    names = list(dict.fromkeys(benchmarks.entry(part.strip()).name for part in parts if part.strip()))
    if not names:
        raise ValueError(f"give at least one benchmark: {', '.join(benchmarks.names())}")
    return names


def _name(spec: str, weights: Path | None) -> str:
    return spec if weights is None else (weights.resolve().parent.name if weights.stem == "model" else weights.stem)
