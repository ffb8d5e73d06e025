"""What the attacks of AutoAttack cost beyond the calls of the model that they make.

Every call of a run is noted: how many images, with a graph or without, how often differentiated. The same calls are
then made bare, in turn with the attack, round after round, on one thread; the ratio is CPU time over CPU time.

    nox -s bench -- attacks/overhead --out benchmarks/results/overhead.md
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from _stored import stored
from robust_attacks import APGD, FAB, L1, L2, Linf, Square, WorstCase
from torch import Tensor, nn
from torch.nn import functional

Call = dict[str, Any]


@dataclass(frozen=True)
class Overhead:
    """CPU time of an attack over that of the bare calls."""

    attack: str
    norm: str
    goal: float | None
    ratio: float
    low: float
    high: float
    milliseconds_per_call: float
    calls: int


class Tape(nn.Module):
    """A model that notes every call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[Call] = []

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.model(images)
        call = {"images": len(images), "graph": logits.requires_grad, "backwards": 0}
        self.calls.append(call)
        if logits.requires_grad:
            logits.register_hook(lambda _: call.update(backwards=call["backwards"] + 1))
        return logits


def replay(model: nn.Module, images: Tensor, labels: Tensor, calls: list[Call]) -> None:
    """The same calls of the model, and nothing else."""
    for call in calls:
        some, truth = images[: call["images"]], labels[: call["images"]]
        if not call["graph"]:
            with torch.no_grad():
                model(some)
            continue
        leaf = some.detach().requires_grad_()
        losses = functional.cross_entropy(model(leaf), truth, reduction="sum")
        for left in range(call["backwards"], 0, -1):
            torch.autograd.grad(losses, leaf, retain_graph=left > 1)


def measure(rounds: int, quick: bool) -> Iterator[Overhead]:
    """Each attack alone, on images that the model gets right."""
    data = stored("cifar_cnn_a_adv")
    with torch.no_grad():
        right = data.model(data.images).argmax(dim=1) == data.labels
    images, labels = data.images[right][:100], data.labels[right][:100]
    steps = 3 if quick else 100
    for threat, queries in ((Linf(eps=2 / 255), 5000), (L2(eps=0.5), 1000), (L1(eps=8.0), 1000)):
        for attack, goal in (
            (APGD(threat=threat, steps=steps, targets=2), 1.25),
            (FAB(threat=threat, steps=steps, targets=1), 1.6),
            (Square(threat=threat, queries=20 if quick else queries), 1.3),
        ):
            suite, tape = WorstCase([attack], sanity=False), Tape(data.model)
            suite.run(tape, images, labels, batch_size=100)
            times = [
                (
                    _seconds(lambda suite=suite: suite.run(data.model, images, labels, batch_size=100)),
                    _seconds(lambda tape=tape: replay(data.model, images, labels, tape.calls)),
                )
                for _ in range(rounds)
            ]
            ratios = sorted(attacked / bare for attacked, bare in times)
            yield Overhead(
                attack=attack.name,
                norm=threat.name,
                goal=goal if threat.name == "Linf" else None,
                ratio=statistics.median(ratios),
                low=ratios[0],
                high=ratios[-1],
                milliseconds_per_call=1000 * statistics.median(bare for _, bare in times) / len(tape.calls),
                calls=len(tape.calls),
            )


def _seconds(call: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    call()
    return time.process_time() - start


def page(rows: list[Overhead], rounds: int) -> list[str]:
    """The measurements as Markdown."""
    return [
        "# What the attacks cost beyond the model",
        "",
        *prose(
            "CPU time of an attack over that of the very calls of the model that it makes, made bare. 100 images of a "
            "robust CIFAR-10 CNN of two convolutions, as small as models get; one thread, medians of "
            f"{rounds} interleaved rounds, with the range. Square makes 5000 queries under Linf, as in AutoAttack, and "
            "1000 under L2 and L1."
        ),
        "",
        made_with(),
        "",
        *table(
            ["attack", "threat", "ratio to pure cost", "goal", "pure ms per call", "calls"],
            [
                [row.attack, row.norm, f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]", row.goal or "",
                 f"{row.milliseconds_per_call:.2f}", row.calls]
                for row in rows
            ],
            left=2,
        ),
    ]  # fmt: skip


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=3)
    torch.set_num_threads(1)
    rows = list(measure(given.rounds, given.quick))
    record = {"versions": versions(), "rounds": given.rounds, "rows": [asdict(row) for row in rows]}
    publish(page(rows, given.rounds), record, given.out)


if __name__ == "__main__":
    main()
