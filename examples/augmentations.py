"""What augmentation brings: a classifier of handwritten digits trained plainly, with AugMix, and with APR-SP.

Trains the same network three times on 1,347 real digits (scikit-learn's) with the published losses of each method and
judges all three on 450 others, clean and under the corruptions that their size allows. The loop is written out, with
robust-augs alone; robust-bench judges. `nox -s augmentations` runs it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from robust_augs import APRPair, APRSingle, AugMix, jensen_shannon
from robust_bench import Result, evaluate
from robust_bench.conditions import Clean, Corrupted
from robust_bench.corruptions import available
from robust_bench.datasets import digits
from robust_models import create_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]

CORRUPTIONS = available(8, 8)
CONDITIONS = (
    Clean(),
    *(Corrupted(corruption=name, severity=level, preset="cifar") for name in CORRUPTIONS for level in (1, 2, 3, 4, 5)),
)


def plain(model: nn.Module, images: Tensor, labels: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross-entropy on the images as they are."""
    return cross_entropy(model(images), labels)


def augmix(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy on the clean view plus 12 times the divergence of it and two AugMix views: arXiv:1912.02781."""
    views = [images, *(AugMix.cifar(images, generator=generator) for _ in range(2))]
    clean, first, second = model(torch.cat(views)).chunk(3)
    return cross_entropy(clean, labels) + 12 * jensen_shannon(clean, first, second).mean()


def apr_sp(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """APR-S, then cross-entropy on that and on its recombination by APR-P: arXiv:2108.08487."""
    single = APRSingle()(images, generator=generator)
    pair = APRPair.cifar(single, generator=generator)
    return cross_entropy(model(single), labels) + cross_entropy(model(pair), labels)


METHODS: dict[str, Loss] = {"plain": plain, "AugMix + JSD": augmix, "APR-SP": apr_sp}


def train(loss: Loss, epochs: int, seed: int) -> nn.Module:
    """Train the small network of the demo with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)  # of the network's first weights
    model = create_model("small_cnn_8", num_classes=10, in_chans=1)
    generator = torch.Generator().manual_seed(seed)  # of the order and all augmentations
    images, labels = digits("train").tensors
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(64)[: len(images) // 64]:
            optimizer.zero_grad()
            loss(model, images[chosen], labels[chosen], generator).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def mean_accuracy(result: Result) -> dict[str, float]:
    """Accuracy when clean, and per corruption over its severities."""
    rows = {row.condition: row.value for row in result.rows}
    means = {name: sum(rows[f"{name} {level}"] for level in (1, 2, 3, 4, 5)) / 5 for name in CORRUPTIONS}
    return {"clean": rows["clean"], **means, "mean of corruptions": sum(means.values()) / len(means)}


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/augmentations"), help="folder for the result files")
    parser.add_argument("--epochs", type=int, default=60, help="of every training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every method, whose accuracies are averaged")
    given = parser.parse_args()
    torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any number of cores
    console = Console(width=100)
    started = time.perf_counter()
    columns: dict[str, list[dict[str, float]]] = {}
    for name, loss in METHODS.items():
        for seed in range(given.seeds):
            console.print(f"Training with {name}, seed {seed} ...")
            model = train(loss, given.epochs, seed)
            result = evaluate(model, "digits", conditions=CONDITIONS, name=name, seed=seed)
            result.save(given.out / f"{name.lower().replace(' ', '')}-{seed}" / "result.json")
            columns.setdefault(name, []).append(mean_accuracy(result))

    shown = Table("accuracy in per cent", title=f"Digits, mean of {given.seeds} trainings")
    for name in METHODS:
        shown.add_column(name, justify="right")
    for row in columns["plain"][0]:
        values = [100 * sum(one[row] for one in columns[name]) / given.seeds for name in METHODS]
        shown.add_row(row, *(f"{value:.1f}" for value in values))
    console.print(shown)
    console.print(f"Result files: {given.out}/*/result.json. Everything took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
