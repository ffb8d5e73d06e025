"""The whole way of ImageNet, on 1,000 of its images and a real small model: clean, corrupted, attacked, calibrated.

The images and the weights lie in shared/data beside the repository. They are training images, one of every class, so
the numbers are not those of the validation set.

    nox -s bench -- bench/imagenet_sample --out benchmarks/results/imagenet_sample.md
"""

import tempfile
import zipfile
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, versions
from robust_bench.benchmarks import Sweep
from robust_bench import markdown
from robust_bench.report import write_report
from robust_bench.runner import Run
from robust_bench.tables import table

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "imagenet_sample" / "imagenet_sample.zip"


def main() -> None:
    """Run everything and write the page."""
    given = arguments(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with zipfile.ZipFile(SAMPLE) as archive:
            archive.extractall(root / "data")
        names = "imagenet-val" if given.quick else "imagenet-val,imagenet-c:generated,imagenet-pgd"
        (result,) = Run(
            model="_squeezenet:build",
            name="SqueezeNet 1.0",
            benchmarks=names,
            data=root / "data",
            out=root / "run",
            attack=Sweep(eps=(1 / 255, 4 / 255), steps=10, restarts=1),
        )()
        page = write_report(root / "run")
        size = page.stat().st_size
    lines = [
        "# The whole way of ImageNet on its sample",
        "",
        *prose(
            "SqueezeNet 1.0 (Deep Compression), 1,000 training images of ImageNet, one of every class, Resize(256) and "
            f"CenterCrop(227). The report page of the run has {size // 1024} KiB."
        ),
        "",
        *markdown.of(table([result])).splitlines(),
        "",
        made_with("robust-bench", "timm"),
    ]
    publish(lines, {"versions": versions("robust-bench", "timm"), "rows": [vars(row) for row in result.rows]}, given.out)


if __name__ == "__main__":
    main()
