"""What an update costs, as a multiple of the base optimizer's, beside the same methods of pytorch-optimizer.

Every method drives SGD with momentum over one batch; LookSAM's number is the mean over a cycle of five updates. Times
are CPU seconds of the process; the rounds of all are interleaved, and the median of the ratios counts. Overhead is what
an update takes beyond its forward and backward passes and the base's step. The extra memory is counted when a pass
begins, the most of all passes: tensors that live then and do not when the base optimizer works alone.

    nox -s bench -- optim/speed
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytorch_optimizer
import timm
import torch
from _pages import arguments, made_with, prose, publish, table, versions
from robust_models import create_model
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Step = Callable[[], object]
CYCLE = 5


@dataclass
class Training:
    """A network, its batch, and how long its passes have taken since the last look."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    passes: float = 0.0
    live: int = 0
    watched: bool = field(default=False)

    def sgd(self) -> torch.optim.Optimizer:
        """The base optimizer."""
        return torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def closure(self, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
        """Forward and backward over the batch, timed."""

        def run() -> Tensor:
            optimizer.zero_grad()
            if self.watched:
                self.live = max(self.live, bytes_alive())
            start = time.process_time()
            loss = cross_entropy(self.model(self.images), self.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.passes += time.process_time() - start
            return loss

        return run

    def losses(self, subset: Tensor | None = None) -> Tensor:
        """Of every image, for ESAM, which runs the backward pass itself."""
        if self.watched:
            self.live = max(self.live, bytes_alive())
        images, labels = (self.images, self.labels) if subset is None else (self.images[subset], self.labels[subset])
        return cross_entropy(self.model(images), labels, reduction="none")


def bytes_alive() -> int:
    """Of all tensors that Python can see, every memory once."""
    memories = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if issubclass(type(thing), Tensor)
    }
    return sum(memories.values())


@dataclass(frozen=True)
class Method:
    """A way to update, of us or of the peer; its cost is wanted to be at most `goal` plain updates."""

    name: str
    step: Step
    updates: int = 1
    peer: Step | None = None
    goal: float | None = None
    timed_passes: bool = True


def methods(training: Training) -> list[Method]:
    """All that is compared."""
    model, parameters = training.model, list(training.model.parameters())

    def ours(optimizer: torch.optim.Optimizer, updates: int = 1) -> Step:
        closure = training.closure(optimizer)
        return lambda: [optimizer.step(closure) for _ in range(updates)]

    def theirs(kind: Callable[..., torch.optim.Optimizer], updates: int = 1, **settings: object) -> Step:
        optimizer = kind(parameters, torch.optim.SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4, **settings)
        closure = training.closure(optimizer)

        def update() -> None:  # as documented there: the first pass, and a step that calls for the second
            closure()
            optimizer.step(closure)  # type: ignore[arg-type]

        return lambda: [update() for _ in range(updates)]

    esam = ESAM(training.sgd(), rho=0.05, model=model)
    return [
        Method("plain step", ours(training.sgd())),
        Method("SAM", ours(SAM(training.sgd(), model=model)), peer=theirs(pytorch_optimizer.SAM), goal=2.05),
        Method(
            "ASAM",
            ours(SAM(training.sgd(), adaptive=True, rho=0.5, model=model)),
            peer=theirs(pytorch_optimizer.SAM, adaptive=True, rho=0.5),
        ),
        Method(
            "Friendly-SAM",
            ours(SAM(training.sgd(), friendly=1.0, model=model)),
            peer=theirs(pytorch_optimizer.FriendlySAM),
        ),
        Method("GSAM", ours(GSAM(training.sgd(), model=model)), goal=2.1),
        Method("ESAM", lambda: esam.step(training.losses), goal=1.75, timed_passes=False),
        Method(
            "LookSAM",
            ours(LookSAM(training.sgd(), k=CYCLE, model=model), CYCLE),
            updates=CYCLE,
            peer=theirs(pytorch_optimizer.LookSAM, CYCLE, k=CYCLE),
            goal=1.25,
        ),
        Method("AWP", ours(AWP(training.sgd(), model=model))),
    ]


def seconds(training: Training, step: Step, updates: int) -> tuple[float, float]:
    """CPU seconds of an update, and those of them that are not in a forward or backward pass."""
    training.passes = 0.0
    start = time.process_time()
    step()
    whole = time.process_time() - start
    return whole / updates, (whole - training.passes) / updates


def most_alive(training: Training, place: int) -> int:
    """Bytes of tensors at the beginning of a pass, at most, when one of the methods works alone."""
    one = methods(training)[place]
    one.step()  # buffers that stay are allocated
    gc.collect()
    training.live, training.watched = 0, True
    one.step()
    training.watched = False
    training.model.zero_grad()
    return training.live


def measured(training: Training, rounds: int) -> list[dict[str, object]]:
    """Per method its cost and overhead in plain updates, of ours and of the peer."""
    times: dict[str, list[tuple[float, float]]] = {}
    peers: dict[str, list[float]] = {}
    weights = sum(parameter.nbytes for parameter in training.model.parameters())
    alive = [most_alive(training, place) for place in range(len(methods(training)))]
    compared = methods(training)
    for _ in range(rounds + 1):
        for one in compared:
            times.setdefault(one.name, []).append(seconds(training, one.step, one.updates))
            if one.peer:
                peers.setdefault(one.name, []).append(seconds(training, one.peer, one.updates)[0])
    plain = [whole for whole, _ in times["plain step"][1:]]
    base = statistics.median(own for _, own in times["plain step"][1:])
    rows = []
    for one, most in zip(compared, alive, strict=True):
        ratios = sorted(whole / unit for (whole, _), unit in zip(times[one.name][1:], plain, strict=True))
        other = [whole / unit for whole, unit in zip(peers.get(one.name, [])[1:], plain, strict=False)]
        overhead = statistics.median(own for _, own in times[one.name][1:]) - base
        rows.append(
            {
                "name": one.name,
                "ratio": statistics.median(ratios),
                "lowest": ratios[0],
                "highest": ratios[-1],
                "goal": one.goal,
                "peer": statistics.median(other) if other else None,
                "overhead": overhead / statistics.median(plain) if one.timed_passes else None,
                "copies": (most - alive[0]) / weights,
                "seconds": statistics.median(whole for whole, _ in times[one.name][1:]),
            }
        )
    return rows


def trainings(quick: bool) -> dict[str, Training]:
    """Networks of the size that people train with these methods."""
    random = torch.Generator().manual_seed(0)
    small = 2 if quick else 32
    return {
        f"PreAct-ResNet-18, {small} images of 32 x 32": Training(
            create_model("preact_resnet18", num_classes=10),
            torch.rand(small, 3, 32, 32, generator=random),
            torch.randint(10, (small,), generator=random),
        ),
        f"ResNet-18 (timm), {small // 2} images of 64 x 64": Training(
            timm.create_model("resnet18", num_classes=100),
            torch.rand(small // 2, 3, 64, 64, generator=random),
            torch.randint(100, (small // 2,), generator=random),
        ),
        f"DeiT-tiny, {max(small // 8, 1)} images of 224 x 224": Training(
            timm.create_model("deit_tiny_patch16_224"),
            torch.rand(max(small // 8, 1), 3, 224, 224, generator=random),
            torch.randint(1000, (max(small // 8, 1),), generator=random),
        ),
    }


def main() -> None:
    """Measure and publish."""
    given = arguments(__doc__, rounds=5)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 1 if given.quick else given.rounds
    lines = ["# Cost of an update", ""]
    lines += prose(
        f"CPU time of an update on one thread as a multiple of SGD's, median of {rounds} interleaved rounds with the "
        "lowest and the highest; the same of pytorch-optimizer, where it has the method; what is spent outside of the "
        "passes and the base's step, in per cent of a plain update; and extra memory in copies of the weights."
    )
    record = {}
    for name, training in trainings(given.quick).items():
        rows = record[name] = measured(training, rounds)
        lines += ["", f"**{name}**, plain update {rows[0]['seconds']:.2f} s", ""]
        lines += table(
            ["method", "cost", "goal", "pytorch-optimizer", "overhead, %", "extra copies"],
            [
                [
                    row["name"],
                    f"**{row['ratio']:.2f}** ({row['lowest']:.2f}-{row['highest']:.2f})",
                    f"{row['goal']:.2f}" if row["goal"] else "",
                    f"{row['peer']:.2f}" if row["peer"] else "",
                    f"{100 * row['overhead']:.1f}" if row["overhead"] is not None else "",
                    f"{row['copies']:.2f}",
                ]
                for row in rows[1:]
            ],
        )
    lines += ["", *prose(made_with("robust-optim", "pytorch-optimizer", "timm"))]
    publish(lines, {"rows": record, "versions": versions("robust-optim", "pytorch-optimizer", "timm")}, given.out)


if __name__ == "__main__":
    main()
