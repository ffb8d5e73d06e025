"""Images per second in evaluation before and after the batch norms are folded into the convolutions, on one thread.

Once for logits, and once for the gradient of the loss by the images, which is a step of an adversarial attack. The
ResNet-20 of CIFAR (He et al., CVPR 2016, section 4.2) is the small network on which attacks are compared. Times are
CPU seconds of the process; the rounds of both sides are interleaved, and the median of the ratios counts.

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

GOAL = 1.25


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
    """A network and the batches that it gets; the ratio of the speeds is wanted to be at least `goal`."""

    name: str
    model: nn.Module
    batch: int
    side: int
    goal: float | None = None


def cases() -> list[Case]:
    """What is compared."""
    small = ResNet20()
    return [
        *(Case("ResNet-20", small, batch, 32, GOAL) for batch in (128, 16, 1)),
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


def measured(case: Case, rounds: int) -> list[dict[str, object]]:
    """Images per second of both, and how far the logits differ, in units of their root mean square."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.side, case.side, generator=random)
    model = case.model.requires_grad_(False).train()
    for _ in range(2):  # statistics that are not 0 and 1
        model(torch.rand(8, 3, case.side, case.side, generator=random))
    model.eval()
    folded = fold_batch_norm(copy.deepcopy(model), images[:1])
    logits = model(images)
    difference = (folded(images) - logits).abs().max() / logits.square().mean().sqrt()
    rows = []
    for work in (forward, gradient):
        times = [(seconds(work, model, images), seconds(work, folded, images)) for _ in range(rounds + 1)]
        before, after = zip(*times[1:], strict=True)  # the first warms up
        ratios = sorted(plain / quick for plain, quick in zip(before, after, strict=True))
        row = {"name": case.name, "work": work.__name__, "batch": case.batch, "side": case.side, "goal": case.goal}
        row |= {"before": case.batch / statistics.median(before), "after": case.batch / statistics.median(after)}
        row |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
        rows.append(row | {"difference": difference.item()})
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
        f"Images per second of CPU time on one thread, float32, median of {rounds} interleaved rounds; the ratio with "
        "its lowest and highest round. Forward gives logits, gradient that of a loss by the images. The difference is "
        "the largest of the logits, in units of their root mean square."
    )
    lines += ["", *table(
        ["network", "pass", "batch", "side", "before", "folded", "ratio", "goal", "difference"],
        [
            [
                row["name"],
                row["work"],
                row["batch"],
                row["side"],
                f"{row['before']:.0f}",
                f"{row['after']:.0f}",
                f"**{row['ratio']:.2f}** ({row['lowest']:.2f}-{row['highest']:.2f})",
                f"{row['goal']:.2f}" if row["goal"] else "",
                f"{row['difference']:.0e}",
            ]
            for row in rows
        ],
        left=2,
    )]  # fmt: skip
    lines += ["", *prose(made_with("robust-models", "timm"))]
    publish(lines, {"rows": rows, "versions": versions("robust-models", "timm")}, given.out)


if __name__ == "__main__":
    main()
