"""A real small model under all nineteen corruptions and five severities, on the sample of ImageNet.

The images and the weights lie in shared/data beside the repository. They are training images, one of every class, so
the numbers are not those of the validation set. What is finished is kept in runs/imagenet_c-<images>, shard by shard:
when the run is stopped, the same command goes on from there.

    nox -s bench -- imagenet_c/accuracy --out benchmarks/results/imagenet_c.md
"""

import dataclasses
import tempfile
import zipfile
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from _squeezenet import build
from robust_bench import Interrupted, Result, benchmarks, evaluate
from robust_bench.benchmarks import Benchmark
from robust_bench.conditions import Clean, Corrupted
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from robust_bench.datasets.chosen import chosen, evenly_spaced
from robust_bench.metrics import mean_corruption_error
from robust_bench.preprocess import declared

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT.parent / "shared" / "data" / "imagenet_sample" / "imagenet_sample.zip"
SEVERITIES = (1, 2, 3, 4, 5)
SHARD = 10  # images that are finished together, under all 96 conditions


def corrupted(folder: Path, images: int, **settings: object) -> Benchmark:
    """The sample clean and under every corruption, or a part of it, evenly spaced over the classes."""
    conditions = tuple(
        Corrupted(corruption=name, severity=severity)
        for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
        for severity in SEVERITIES
    )
    (part,) = benchmarks.load("imagenet-val", folder, **settings).parts
    part = dataclasses.replace(
        part,
        name="imagenet_c",
        benchmark="ImageNet sample",
        data=chosen(part.data, evenly_spaced(len(part.data), images)),  # type: ignore[arg-type]
        conditions=(Clean(), *conditions),
        settings={**part.settings, "subset": f"{images} images, evenly spaced"},
    )
    return Benchmark(name="imagenet_c", parts=(part,))


def accuracies(result: Result) -> dict[str, list[float]]:
    """Accuracy per corruption, by severity."""
    found: dict[str, list[float]] = {}
    for row in result.rows:
        if row.metric == "accuracy" and row.settings["kind"] == "corruption":
            found.setdefault(row.settings["corruption"], []).append(row.value)
    return found


def page(result: Result) -> list[str]:
    """The accuracies as Markdown."""
    (clean,) = (row for row in result.rows if row.metric == "accuracy" and row.settings["kind"] == "clean")
    found = accuracies(result)
    fifteen = {name: [1 - right for right in found[name]] for name in CORRUPTIONS}
    seconds = sum(row.seconds for row in result.rows)

    def line(name: str) -> list[str]:
        values = found[name]
        return [name, *(f"{100 * value:.1f}" for value in values), f"{100 * sum(values) / len(values):.1f}"]

    heads = ["accuracy, %", *(f"severity {severity}" for severity in SEVERITIES), "mean"]
    mean = [sum(values) / len(CORRUPTIONS) for values in zip(*(found[name] for name in CORRUPTIONS), strict=True)]
    last = ["**mean of the fifteen**", *(f"{100 * value:.1f}" for value in mean), f"{100 * sum(mean) / len(mean):.1f}"]
    return [
        "# A real model under all corruptions",
        "",
        *prose(
            f"SqueezeNet 1.0 (Deep Compression) on {clean.count} training images of ImageNet, Resize(256) and "
            "CenterCrop(227), corrupted in memory with the constants of ImageNet-C, made textures of frost, no JPEG "
            f"afterwards. Clean: {100 * clean.value:.1f} % (95 % interval {100 * (clean.low or 0):.1f}–"
            f"{100 * (clean.high or 0):.1f}). mCE over the fifteen: {100 * mean_corruption_error(fifteen):.1f}, which "
            "is not that of ImageNet-C, whose images are others. The evaluation took "
            f"{seconds / 60:.0f} minutes on one thread."
        ),
        "",
        made_with("robust-bench", "timm"),
        "",
        *table(heads, [*(line(name) for name in CORRUPTIONS), last]),
        "",
        *prose("Four more, which never enter the mean:"),
        "",
        *table(heads, [line(name) for name in EXTRA_CORRUPTIONS]),
    ]


def main() -> None:
    """Evaluate what is missing and write the page."""
    given = arguments(__doc__, images=1000)
    torch.set_num_threads(1)
    images = 2 if given.quick else given.images
    model = build()
    with tempfile.TemporaryDirectory() as folder:  # the pictures stay out of the repository
        with zipfile.ZipFile(SAMPLE) as archive:
            archive.extractall(folder)
        try:
            result = evaluate(
                model,
                corrupted(Path(folder), images, preprocess=declared(model)),
                name="SqueezeNet 1.0",
                batch_size=SHARD,
                shard_size=SHARD,
                out=Path(folder, "run") if given.quick else ROOT / "runs" / f"imagenet_c-{images}",
            )
        except Interrupted:
            raise SystemExit("interrupted: what is finished is kept, the same command goes on from there") from None
    record = {"versions": versions("robust-bench", "timm"), "rows": [vars(row) for row in result.rows]}
    publish(page(result), record, given.out)


if __name__ == "__main__":
    main()
