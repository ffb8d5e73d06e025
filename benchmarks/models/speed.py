"""Forward and backward passes of our architectures beside models of timm that need about as many operations.

Operations are counted by torch in one forward pass. The ratio is that of images per second, ours over timm's, times the
ratio of the operations: above 1, ours does more operations a second. CPU seconds of the process on one thread; the two
of a pair take turns, and the median counts.

    nox -s bench -- models/speed
"""

import statistics
import time
from dataclasses import dataclass

import robust_models  # noqa: F401  # registers its models with timm
import timm
import torch
from _pages import arguments, made_with, prose, publish, table, versions
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Pair:
    """A model of ours and one of timm's, and the sides of their images in pixels."""

    ours: str
    timms: str
    size: int = 224
    timms_size: int = 224


PAIRS = (
    Pair("rvt_tiny", "deit_tiny_patch16_224"),
    Pair("rvt_small", "deit_small_patch16_224"),
    Pair("rvt_small_plus", "deit_small_patch16_224"),
    Pair("fan_tiny_12_p16_224", "xcit_tiny_24_p16_224"),
    Pair("fan_small_12_p4_hybrid", "xcit_small_12_p16_224"),
    Pair("gfnet_tiny", "deit_tiny_patch16_224"),
    Pair("gfnet_h_tiny", "convnext_pico"),
    Pair("drvit_small_patch16", "deit_small_patch16_224"),
    Pair("wave_resnet50", "resnet50"),
    Pair("resnet50_gelu", "resnet50"),
    Pair("convnext_tiny_cvst", "convnext_tiny"),
    Pair("vit_small_cvst", "deit_small_patch16_224"),
    Pair("xcit_medium_12_p16_224", "xcit_small_24_p16_224"),
    Pair("preact_resnet18", "resnet34", 32, 96),
    Pair("wrn_28_10", "resnet34", 32, 96),
    Pair("robnet_free", "mobilenetv2_100", 32, 96),
)


def operations(model: nn.Module, images: torch.Tensor) -> float:
    """Billions of floating point operations of a forward pass for one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(images[:1])
    return counter.get_total_flops() / 1e9


def seconds(model: nn.Module, images: torch.Tensor) -> float:
    """CPU seconds of a forward and a backward pass."""
    start = time.process_time()
    model(images).sum().backward()
    return time.process_time() - start


def measured(pair: Pair, rounds: int, batch: int) -> dict[str, object]:
    """Images per second and operations of both."""
    torch.manual_seed(0)
    models, images = [], []
    for name, size in ((pair.ours, pair.size), (pair.timms, pair.timms_size)):
        models.append(timm.create_model(name).train())
        images.append(torch.rand(batch, 3, size, size))
    counts = [operations(model.eval(), some) for model, some in zip(models, images, strict=True)]
    times: list[list[float]] = [[], []]
    for round_ in range(rounds + 1):  # the first warms up
        for model, some, kept in zip(models, images, times, strict=True):
            took = seconds(model.train(), some)
            if round_:
                kept.append(took)
    ratios = sorted(theirs / mine * counts[0] / counts[1] for mine, theirs in zip(*times, strict=True))
    return {
        "ours": pair.ours,
        "timm": pair.timms,
        "operations": counts,
        "images per second": [batch / statistics.median(kept) for kept in times],
        "ratio": statistics.median(ratios),
        "range": [ratios[0], ratios[-1]],
    }


def main() -> None:
    """Measure and publish."""
    given = arguments(__doc__, rounds=5, batch=4)
    torch.set_num_threads(1)
    pairs = PAIRS[:1] if given.quick else PAIRS
    rows = [measured(pair, 1 if given.quick else given.rounds, given.batch) for pair in pairs]
    lines = ["# Speed of the architectures", ""]
    lines += prose(
        f"Forward and backward passes, batches of {given.batch}, images per second of CPU time on one thread, medians "
        f"of {1 if given.quick else given.rounds} interleaved rounds. *G*: billions of operations of a forward pass. "
        "The ratio is that of operations per second, ours over timm's, with its lowest and highest round. Above 1 ours "
        "is faster than its number of operations says. Models for CIFAR see 32 pixels, their partner as many as make "
        "its operations comparable."
    )
    heads = ["ours", "timm", "ours G", "timm G", "ours images/s", "timm images/s", "ratio"]
    cells = []
    for row in rows:
        (mine, theirs), (fast, other) = row["operations"], row["images per second"]  # type: ignore[misc]
        low, high = row["range"]  # type: ignore[misc]
        cells.append([
            row["ours"], row["timm"], f"{mine:.2f}", f"{theirs:.2f}", f"{fast:.1f}", f"{other:.1f}",
            f"**{row['ratio']:.2f}** ({low:.2f}-{high:.2f})",
        ])  # fmt: skip
    lines += ["", *table(heads, cells, left=2), "", made_with("robust-models", "timm")]
    publish(lines, {"versions": versions("robust-models", "timm"), "rows": rows}, given.out)


if __name__ == "__main__":
    main()
