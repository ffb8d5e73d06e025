"""The whole way of ImageNet, on its sample and a real small model: clean, calibrated, corrupted, attacked, a page.

The images and the weights lie in shared/data beside the repository. They are training images, one of every class, so
the numbers are not those of the validation set. All 1,000 are shown as they are, and 50, evenly spaced, under
corruptions and attacks; `robust-bench run` with the same benchmarks takes all of them.

    nox -s bench -- bench/imagenet_sample --out benchmarks/results/imagenet_sample.md
"""

import dataclasses
import tempfile
import zipfile
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, versions
from _squeezenet import build
from robust_bench import benchmarks, evaluate, markdown
from robust_bench.benchmarks import Benchmark, Sweep
from robust_bench.datasets.chosen import chosen, evenly_spaced
from robust_bench.merging import join
from robust_bench.preprocess import declared
from robust_bench.report import write_report
from robust_bench.tables import table

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "imagenet_sample" / "imagenet_sample.zip"
CHANGED = ("imagenet-c:generated", "imagenet-pgd")


def some(benchmark: Benchmark, images: int) -> Benchmark:
    """The same on a few of the images, evenly spaced over the classes."""
    words = f"{benchmark.parts[0].label}, {images} images"
    parts = tuple(
        dataclasses.replace(
            part,
            name=f"{part.name}-{images}",
            benchmark=words,
            data=chosen(part.data, evenly_spaced(1000, images)),
            settings={**part.settings, "subset": f"{images} images, evenly spaced"},
        )
        for part in benchmark.parts
    )
    return dataclasses.replace(benchmark, parts=parts)


def main() -> None:
    """Run everything and write the page."""
    given = arguments(__doc__)
    torch.set_num_threads(1)
    images = 4 if given.quick else 50
    model = build()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with zipfile.ZipFile(SAMPLE) as archive:
            archive.extractall(root / "data")
        attack = Sweep(eps=(1 / 255, 4 / 255), steps=10, restarts=1)
        settings = {"preprocess": declared(model), "attack": attack}
        wanted = [benchmarks.load("imagenet-val", root / "data", **settings)]
        wanted += [some(benchmarks.load(name, root / "data", **settings), images) for name in CHANGED]
        results = [
            evaluate(model, each, name="SqueezeNet 1.0", batch_size=16, out=root / "run" / "evaluations" / str(place))
            for place, each in enumerate(wanted)
        ]
        twice = {row.benchmark: row for row in results[2].rows if row.settings["kind"] == "clean"}
        rows = tuple(row for row in results[2].rows if row not in twice.values())  # the clean images of both
        result = join(
            [*results[:2], dataclasses.replace(results[2], rows=rows)], ",".join(each.name for each in wanted)
        )
        result.save(root / "run" / "result.json")
        size = write_report(root / "run").stat().st_size
    lines = [
        "# The whole way of ImageNet on its sample",
        "",
        *prose(
            "SqueezeNet 1.0 (Deep Compression) on training images of ImageNet, one of every class, Resize(256) and "
            f"CenterCrop(227). The report page of the run has {size // 1024} KiB."
        ),
        "",
        *markdown.of(table([result])).splitlines(),
        "",
        made_with("robust-bench", "timm"),
    ]
    record = {"versions": versions("robust-bench", "timm"), "rows": [vars(row) for row in result.rows]}
    publish(lines, record, given.out)


if __name__ == "__main__":
    main()
