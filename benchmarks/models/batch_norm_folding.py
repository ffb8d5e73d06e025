"""Images per second in evaluation before and after the batch norms are folded into the convolutions, on one thread.

Once for logits, and once for the gradient of the loss by the images, which is a step of an adversarial attack. The
ResNet-20 of CIFAR (He et al., CVPR 2016, section 4.2) is the small network on which attacks are compared. The folded
network is measured once more in the memory format channels_last, and so is, for comparison, the one that is not folded.
The share of the batch norms in the time says about how much there is to gain by folding alone. Times are CPU seconds of
the process; the rounds of all sides are interleaved, and the median of the ratios counts.

    nox -s bench -- models/batch_norm_folding
"""

import copy
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from _pages import arguments, made_with, prose, publish, table, versions
from robust_models.layers.fold_batch_norm import fold_batch_norm
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

GOAL = 1.25
BATCH_NORM = ("aten::batch_norm", "autograd::engine::evaluate_function: NativeBatchNormBackward0")


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without weights: every other pixel, and zeros for new channels."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.new = width - channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        shortcut = x if self.stride == 1 else x[..., :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.new)) if self.new else shortcut
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 wide; 0.27 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        strides = [2 if channels < width else 1 for channels, width in itertools.pairwise(widths)]
        self.blocks = nn.Sequential(*map(Block, widths, widths[1:], strides))
        self.fc = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 3, 32, 32)."""
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.fc(self.blocks(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Case:
    """A network and the batches that it gets."""

    name: str
    model: nn.Module
    batch: int
    side: int


def cases() -> list[Case]:
    """What is compared."""
    small = ResNet20()
    return [
        *(Case("ResNet-20", small, batch, 32) for batch in (128, 32, 8, 1)),
        Case("ResNet-18 (timm)", timm.create_model("resnet18"), 8, 224),
        Case("EfficientNet-B0 (timm)", timm.create_model("efficientnet_b0"), 8, 224),
    ]


@torch.inference_mode()
def forward(model: nn.Module, images: Tensor) -> None:
    """The logits."""
    model(images)


def gradient(model: nn.Module, images: Tensor) -> None:
    """The gradient of a loss by the images."""
    images = images.clone().requires_grad_()
    torch.autograd.grad(model(images).logsumexp(dim=1).sum(), images)


def seconds(work: Callable[[nn.Module, Tensor], None], model: nn.Module, images: Tensor) -> float:
    """CPU seconds of a pass, from enough of them for the clock."""
    passes = max(1, 16 // len(images))
    start = time.process_time()
    for _ in range(passes):
        work(model, images)
    return (time.process_time() - start) / passes


def share_of_batch_norms(work: Callable[[nn.Module, Tensor], None], model: nn.Module, images: Tensor) -> float:
    """How much of the time of a pass goes into batch norms and their gradients, in [0, 1]."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(max(2, 64 // len(images))):
            work(model, images)
    events = profiled.key_averages()
    norms = [event.cpu_time_total for event in events if event.key in BATCH_NORM]  # with what they call
    return sum(norms) / sum(event.self_cpu_time_total for event in events)


def measured(case: Case, rounds: int) -> list[dict[str, object]]:
    """Images per second of all four, and how far the logits differ, in units of their root mean square."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.side, case.side, generator=random)
    model = case.model.requires_grad_(False).train()
    for _ in range(2):  # statistics that are not 0 and 1
        model(torch.rand(8, 3, case.side, case.side, generator=random))
    model.eval()
    folded = fold_batch_norm(copy.deepcopy(model), images[:1])
    sides = {"before": model, "folded": folded}
    sides |= {
        f"{name}, last": copy.deepcopy(each).to(memory_format=torch.channels_last) for name, each in sides.items()
    }
    logits = model(images)
    scale = logits.square().mean().sqrt()
    difference = max((each(images) - logits).abs().max() / scale for each in sides.values())
    rows = []
    for work in (forward, gradient):
        times: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(rounds + 1):  # the first warms up
            for name in (list(sides), list(sides)[::-1])[round_ % 2]:
                times[name].append(seconds(work, sides[name], images))
        row = {"name": case.name, "work": work.__name__, "batch": case.batch, "side": case.side}
        row |= {"difference": difference.item(), "batch norms": share_of_batch_norms(work, model, images)}
        for name, taken in times.items():
            ratios = sorted(plain / each for plain, each in zip(times["before"][1:], taken[1:], strict=True))
            row[name] = {"images per second": case.batch / statistics.median(taken[1:])}
            row[name] |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
        rows.append(row)
    return rows


def main() -> None:
    """Measure and publish."""
    given = arguments(__doc__, rounds=15)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 1 if given.quick else given.rounds
    rows = [row for case in cases() for row in measured(case, rounds)]
    lines = ["# Speed of evaluation with folded batch norms", ""]
    lines += prose(
        f"Images per second of CPU time on one thread, float32, median of {rounds} interleaved rounds, and what they "
        "are of those before, with the lowest and highest round. *Last*: in the memory format channels_last, by "
        "`model.to(memory_format=torch.channels_last)`. *Norms*: share of the batch norms in the time before, by the "
        "profiler. Forward gives logits, gradient that of a loss by the images. The difference is the largest of the "
        f"logits, in units of their root mean square. On ResNet-20 the goal is {GOAL}."
    )
    heads = ["network", "pass", "batch", "side", "norms", "before", "folded", "last", "folded, last", "difference"]
    cells = []
    for row in rows:
        start = [row["name"], row["work"], row["batch"], row["side"], f"{100 * row['batch norms']:.0f} %"]
        start.append(f"{row['before']['images per second']:.0f}")
        quick = [row[name] for name in ("folded", "before, last", "folded, last")]
        ratios = [f"**{each['ratio']:.2f}** ({each['lowest']:.2f}-{each['highest']:.2f})" for each in quick]
        cells.append([*start, *ratios, f"{row['difference']:.0e}"])
    lines += ["", *table(heads, cells, left=2)]
    lines += ["", *prose(made_with("robust-models", "timm"))]
    publish(lines, {"rows": rows, "versions": versions("robust-models", "timm")}, given.out)


if __name__ == "__main__":
    main()
