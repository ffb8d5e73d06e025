"""What the engine of robust-bench costs: in memory over a bare loop, on image files over a bare loop of timm's loader.

In memory, a small network sees the digits again and again; the bare loop has the same batches, and counts what is
right. On files, the model is next to nothing, so that reading decides; both sides read with as many processes. The
image files are the sample of ImageNet beside the repository.

    nox -s bench -- bench/engine --out benchmarks/results/engine.md
"""

import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from robust_bench import evaluate
from robust_bench.datasets import digits, folder
from robust_models import create_model
from timm.data import create_dataset, create_loader
from torch import Tensor
from torch.utils.data import TensorDataset

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "imagenet_sample" / "imagenet_sample.zip"
BATCH = 128


def in_memory(rounds: int, count: int) -> list[dict[str, object]]:
    """CPU seconds of evaluate, with and without a folder, and of the bare loop."""
    images, labels = digits("test").tensors
    repeats = -(-count // len(images))
    data = TensorDataset(images.repeat(repeats, 1, 1, 1)[:count], labels.repeat(repeats)[:count])
    model = create_model("small_cnn_8", num_classes=10, in_chans=1).eval()

    def bare() -> None:
        right = 0
        with torch.no_grad():
            for start in range(0, count, BATCH):
                some, truth = (tensor[start : start + BATCH] for tensor in data.tensors)
                right += int((model(some).argmax(dim=1) == truth).sum())

    with tempfile.TemporaryDirectory() as place:
        places = iter(range(1000))
        runs: dict[str, Callable[[], object]] = {
            "bare loop": bare,
            "evaluate": lambda: evaluate(model, data, batch_size=BATCH),
            "evaluate, records kept": lambda: evaluate(
                model, data, batch_size=BATCH, out=Path(place) / str(next(places))
            ),
        }
        return _measured("small_cnn_8, in memory", runs, rounds, count, time.process_time)


def model(images: Tensor) -> Tensor:
    """Next to nothing: images (N, 3, H, W) to logits (N, 1000)."""
    return images.mean(dim=(1, 2, 3))[:, None] * torch.ones(1000)


def on_files(rounds: int, count: int, workers: int) -> list[dict[str, object]]:
    """Wall-clock seconds of evaluate on image files, and of a bare loop over timm's loader."""
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(SAMPLE) as file:
            names = [name for name in sorted(file.namelist()) if name.endswith(".JPEG")][:count]
            file.extractall(place, names)
        (root,) = {Path(place, name).parents[1] for name in names}

        def bare() -> None:
            loader = create_loader(
                create_dataset("", root=str(root)), (3, 224, 224), BATCH, use_prefetcher=False, num_workers=workers,
                interpolation="bilinear", crop_pct=0.875,
            )  # fmt: skip
            right = 0
            with torch.no_grad():
                for images, truth in loader:
                    right += int((model(images).argmax(dim=1) == truth).sum())

        outs = iter(range(1000))
        runs: dict[str, Callable[[], object]] = {
            "bare loop over timm's loader": bare,
            "evaluate": lambda: evaluate(model, folder(root), batch_size=BATCH, workers=workers),
            "evaluate, records kept": lambda: evaluate(
                model, folder(root), batch_size=BATCH, workers=workers, out=Path(place) / "out" / str(next(outs))
            ),
        }
        return _measured(f"image files, {workers} processes", runs, rounds, len(names), time.perf_counter)


def _measured(
    case: str, runs: dict[str, Callable[[], object]], rounds: int, count: int, clock: Callable[[], float]
) -> list[dict[str, object]]:
    """Run in turn, after a round that counts for nothing; ratios are to the first of the same round."""

    def seconds(run: Callable[[], object]) -> float:
        start = clock()
        run()
        return clock() - start

    times = [{name: seconds(run) for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    first = next(iter(runs))
    return [
        {
            "case": case,
            "what": name,
            "images per second": count / statistics.median(took[name] for took in times),
            "ratio": statistics.median(took[name] / took[first] for took in times),
            "lowest": min(took[name] / took[first] for took in times),
            "highest": max(took[name] / took[first] for took in times),
        }
        for name in runs
    ]


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=5)
    torch.set_num_threads(1)
    rows = in_memory(given.rounds, 500 if given.quick else 50_000)
    if SAMPLE.is_file():
        rows += on_files(given.rounds, 20 if given.quick else 1000, min(2, os.cpu_count() or 1))
    lines = [
        "# What the engine of robust-bench costs",
        "",
        *prose(
            f"Batches of {BATCH}; medians of {given.rounds} interleaved rounds, with the range. In memory CPU time "
            "counts, on files the wall clock. Every image's record is kept, or only the accuracy."
        ),
        "",
        made_with("robust-bench", "timm"),
        "",
        *table(
            ["case", "what", "images per second", "time, relative to the bare loop"],
            [
                [
                    row["case"], row["what"], f"{row['images per second']:,.0f}",
                    f"{row['ratio']:.3f} [{row['lowest']:.3f}, {row['highest']:.3f}]",
                ]
                for row in rows
            ],
            left=2,
        ),
    ]  # fmt: skip
    publish(lines, {"versions": versions("robust-bench", "timm"), "rows": rows}, given.out)


if __name__ == "__main__":
    main()
