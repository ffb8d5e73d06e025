"""What attacks, evaluation and corruptions cost on a GPU, over what nobody can avoid.

Everything is timed by the wall clock from an idle GPU to an idle GPU, in turn, round after round, after rounds that
count for nothing; a ratio is to the first way of the same round. Without a GPU only `--quick` works.

    nox -s bench -- gpu/gpu --out benchmarks/results/gpu.md
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from typing import Any

import timm
import torch
from _pages import arguments, prose, publish, table, versions
from _stored import PARITY, stored
from robust_attacks import APGD, FAB, L2, PGD, ImageRandom, Linf, Report, Square, Threat, WorstCase, auto_attack
from robust_bench import evaluate
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from robust_models import create_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PEERS = ("torchattacks",) if find_spec("torchattacks") else ()
STEPS = 10
GOAL = 2000  # images per second of every corruption
NO_IMAGE_FALLS = 1e-6  # a radius so small that every attack makes all its steps on all images


@dataclass(frozen=True)
class Task:
    """A model with images that it gets right, all on the device."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Timing:
    """Seconds of one way to do something, and of how many images: medians, and the ratio to the first way."""

    case: str
    what: str
    images: int
    seconds: float
    ratio: float
    low: float
    high: float
    more: dict[str, Any] = field(default_factory=dict)


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call, with all that it leaves the GPU to do."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(case: str, runs: dict[str, Callable[[], object]], rounds: int, images: int, warm: int = 1) -> list[Timing]:
    """Run in turn, after `warm` rounds that count for nothing."""
    times = [{name: seconds(run) for name, run in runs.items()} for _ in range(warm + rounds)][warm:]
    first = next(iter(runs))
    rows = []
    for name in runs:
        ratios = [took[name] / took[first] for took in times]
        middle = statistics.median(took[name] for took in times)
        rows.append(Timing(case, name, images, middle, statistics.median(ratios), min(ratios), max(ratios)))
    return rows


def bare(task: Task, forwards: int, backwards: int, batch: int) -> None:
    """So many images through the model, so many of them differentiated, in full batches and nothing else."""
    images, labels = task.images[:batch], task.labels[:batch]
    for _ in range(round(backwards / batch)):
        leaf = images.detach().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(task.model(leaf), labels, reduction="sum"), leaf)
    with torch.no_grad():
        for _ in range(round((forwards - backwards) / batch)):
            task.model(images)


def resnet18(size: int, count: int) -> Task:
    """The ResNet-18 of timm with random weights on random images: speed depends on neither."""
    model = timm.create_model("resnet18", num_classes=10)
    return _task(f"ResNet-18, {size} x {size} x 3", model, torch.rand(count, 3, size, size))


def robust_cnn(count: int | None = None) -> Task:
    """The stored robust CNN on CIFAR images that it gets right."""
    data = stored("cifar_cnn_a_adv")
    with torch.no_grad():
        right = data.model(data.images).argmax(dim=1) == data.labels
    return _task("robust CIFAR-10 CNN", data.model, data.images[right][:count])


def _task(name: str, model: nn.Module, images: Tensor) -> Task:
    model, images = model.eval().to(DEVICE), images.to(DEVICE)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    return Task(name, model, images, labels)


def pgd(rounds: int, quick: bool) -> Iterator[Timing]:
    """PGD over as many forward passes and image gradients, and the PGD of torchattacks."""
    for task, radii in (
        (resnet18(32, 4 if quick else 256), {"Linf": 8 / 255, "L2": 0.5}),
        (resnet18(224, 2 if quick else 64), {"Linf": 4 / 255, "L2": 3.0}),
    ):
        count = len(task.images)
        for threat in (Linf(eps=radii["Linf"]), L2(eps=radii["L2"])):
            runs: dict[str, Callable[[], object]] = {"bare passes": partial(bare, task, *[STEPS * count] * 2, count)}
            attack = PGD(threat=threat, steps=STEPS)
            runs["robust-attacks"] = partial(attack, task.model, task.images, task.labels, random=ImageRandom(0))
            if PEERS:
                import torchattacks

                theirs = {"Linf": torchattacks.PGD, "L2": torchattacks.PGDL2}[threat.name]
                eps = radii[threat.name]
                runs["torchattacks"] = partial(
                    theirs(task.model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS), task.images, task.labels
                )
            yield from timed(f"{task.name}, {threat.name}", runs, rounds, count, warm=1 if quick else 3)


def pooled(rounds: int, quick: bool) -> Iterator[Timing]:
    """The attacks of AutoAttack over as many bare passes, in full batches, as their reports tell."""
    tasks = [(resnet18(32, 4 if quick else 256), {"Linf": NO_IMAGE_FALLS, "L2": NO_IMAGE_FALLS})]
    if PARITY.is_dir():
        tasks.insert(0, (robust_cnn(4 if quick else 100), {"Linf": 2 / 255, "L2": 0.5}))
    for task, radii in tasks:
        for threat in (Linf(eps=radii["Linf"]), L2(eps=radii["L2"])):
            for attack in (
                APGD(threat=threat, steps=3 if quick else 100),
                FAB(threat=threat, steps=2 if quick else 50, targets=1),
                Square(threat=threat, queries=20 if quick else 500),
            ):
                yield _suite(task, threat, WorstCase([attack], sanity=False), rounds, len(task.images))


def auto(rounds: int, quick: bool) -> Iterator[Timing]:
    """AutoAttack on the stored CNN, over bare passes; once on its images, once on copies that fill a large batch."""
    if not PARITY.is_dir():
        return
    suite = auto_attack(Linf(eps=2 / 255))
    if quick:
        suite = WorstCase([APGD(threat=Linf(eps=2 / 255), steps=3)])
    task = robust_cnn(4 if quick else None)
    for copies in (1, 10):
        many = Task(task.name, task.model, task.images.repeat(copies, 1, 1, 1), task.labels.repeat(copies))
        yield _suite(many, suite.threat, suite, rounds, len(many.images), warm=0)  # long enough to be warm


def _suite(task: Task, threat: Threat, suite: WorstCase, rounds: int, batch: int, warm: int = 1) -> Timing:
    reports: list[Report] = []
    times = []
    for _ in range(warm + rounds):
        took = seconds(lambda: reports.append(suite.run(task.model, task.images, task.labels, batch_size=batch)))
        report = reports[-1]
        forwards, backwards = (sum(counts.values()) for counts in (report.forwards, report.backwards))
        times.append((took, seconds(partial(bare, task, forwards, backwards, batch))))
    ratios = [took / alone for took, alone in times[warm:]]
    return Timing(
        case=f"{task.name}, {threat.name}",
        what=", ".join(suite.stages),
        images=len(task.images),
        seconds=statistics.median(took for took, _ in times[warm:]),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        more={
            "forwards": forwards,
            "backwards": backwards,
            "standing": int(report.robust.sum()),
            "stages": {
                part.name: {"seconds": part.seconds, "standing": int(part.robust.sum())} for part in report.parts
            },
        },
    )


def engine(rounds: int, quick: bool) -> Iterator[Timing]:
    """Evaluate in memory over a bare loop; the images wait in the memory of the host."""
    for name, model, size, count in (
        ("small CNN, 32 x 32 x 3", create_model("small_cnn_32"), 32, 300 if quick else 20_000),
        ("ResNet-18, 224 x 224 x 3", timm.create_model("resnet18", num_classes=10), 224, 8 if quick else 2048),
    ):
        task = _task(name, model, torch.rand(2, 3, size, size))
        data = TensorDataset(torch.rand(count, 3, size, size), torch.randint(10, (count,)))
        runs: dict[str, Callable[[], object]] = {
            "bare loop": partial(_loop, task.model, data),
            "evaluate": partial(evaluate, task.model, data, batch_size=128, progress=False),
        }
        yield from timed(name, runs, rounds, count)


def _loop(model: nn.Module, data: TensorDataset) -> int:
    right = 0
    with torch.no_grad():
        for start in range(0, len(data), 128):
            images, labels = (tensor[start : start + 128].to(DEVICE) for tensor in data.tensors)
            right += int((model(images).argmax(dim=1) == labels).sum())
    return right


def corruptions(rounds: int, quick: bool) -> Iterator[Timing]:
    """Every corruption at 224 pixels, over the way of bytes to numbers in [0, 1] and back."""
    generator = torch.Generator().manual_seed(0)
    count = 4 if quick else 128
    images = torch.randint(256, (count, 3, 224, 224), generator=generator, dtype=torch.uint8).to(DEVICE)
    runs: dict[str, Callable[[], object]] = {
        "bytes to [0, 1] and back": lambda: images.float().div_(255).clamp_(0, 1).mul_(255).to(torch.uint8)
    } | {name: partial(corrupt, images, name, severity=3) for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)}
    yield from timed("224 x 224 x 3", runs, rounds, count, warm=1 if quick else 3)


def card() -> str:
    """The device, as its maker names it, and with what it is used."""
    if DEVICE.type == "cpu":
        return "no GPU: this page only tries the script out"
    return f"{torch.cuda.get_device_name(DEVICE)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def page(rows: dict[str, list[Timing]], made: dict[str, str], rounds: int, day: str) -> list[str]:
    """The measurements as Markdown."""

    def ways(name: str) -> list[str]:
        return table(
            ["case", "what", "images", "ms", "ratio"],
            [[row.case, row.what, f"{row.images:,}", f"{1000 * row.seconds:.1f}", _range(row)] for row in rows[name]],
            left=2,
        )

    def suites(name: str) -> list[str]:
        return table(
            ["case", "attack", "images", "standing", "s", "images per second", "forward / backward passes", "ratio"],
            [
                [
                    row.case, row.what, f"{row.images:,}", f"{row.more['standing']:,}", f"{row.seconds:.2f}",
                    f"{row.images / row.seconds:,.1f}", f"{row.more['forwards']:,} / {row.more['backwards']:,}",
                    _range(row),
                ]
                for row in rows[name]
            ],
            left=2,
        )  # fmt: skip

    return [
        "# On a GPU: attacks, evaluation, corruptions",
        "",
        *prose(
            "Wall-clock time from an idle GPU to an idle GPU, in one process; medians of interleaved rounds "
            f"({rounds}; 3 of single attacks, 2 of AutoAttack), ratios with their range. Searches may use TF32 in "
            "convolutions, as torch does by default, and so do the bare passes."
        ),
        "",
        f"{card()}; {', '.join(f'{name} {number}' for name, number in made.items())}; {day}.",
        "",
        "## PGD",
        "",
        *prose(
            f"{STEPS} steps from a random start, over the same number of forward passes and image gradients alone. "
            "The ResNet-18 has random weights."
        ),
        "",
        *ways("pgd"),
        "",
        "## The attacks of AutoAttack",
        "",
        *prose(
            "Each alone, all images in one batch: 100 steps of APGD, 50 of FAB towards one target, 500 queries of "
            "Square. The ratio is to as many passes as the report counts, in full batches. The radius is so small for "
            "the ResNet-18 that no image falls; that of the CNN, which is as small as models get and waits for the "
            "host, is 2/255 under Linf and 0.5 under L2."
        ),
        "",
        *suites("pooled"),
        "",
        "## AutoAttack",
        "",
        *prose(
            "`standard` under Linf 2/255 on the stored images that the CNN gets right, and on ten copies of each, all "
            "in one batch; the ratio as above."
        ),
        "",
        *suites("auto"),
        "",
        *table(
            ["images", "stage", "standing", "s"],
            [
                [f"{row.images:,}", stage, f"{numbers['standing']:,}", f"{numbers['seconds']:.2f}"]
                for row in rows["auto"]
                for stage, numbers in row.more["stages"].items()
            ],
            left=2,
        ),
        "",
        "## Evaluation in memory",
        "",
        *prose("Batches of 128 from the memory of the host, over a bare loop that counts what is right."),
        "",
        *ways("engine"),
        "",
        "## Corruptions",
        "",
        *prose(
            "Of severity 3, bytes in and out, on the GPU; the ratio is to the way to floats and back alone. The last "
            f"four are not among the fifteen. **Goal: {GOAL:,} images per second for each of the fifteen.** "
            f"{_verdict(rows['corruptions'])}."
        ),
        "",
        *table(
            ["corruption", "images", "ms", "images per second", "ratio"],
            [
                [
                    row.what, row.images, f"{1000 * row.seconds:.2f}", f"{row.images / row.seconds:,.0f}", _range(row),
                ]
                for row in rows["corruptions"]
            ],
        ),
    ]  # fmt: skip


def _verdict(rows: list[Timing]) -> str:
    missed = [row.what for row in rows if row.what in CORRUPTIONS and row.images / row.seconds < GOAL]
    return f"Missed by {', '.join(missed)}" if missed else "Met by all"


def _range(row: Timing) -> str:
    return f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=10)
    if DEVICE.type == "cpu" and not given.quick:
        raise SystemExit("there is no CUDA device: only --quick, which measures nothing, works without one")
    torch.manual_seed(0)
    rounds = 1 if given.quick else given.rounds
    rows: dict[str, list[Timing]] = {}
    for section, most in ((corruptions, 10), (pgd, 10), (engine, 10), (pooled, 3), (auto, 2)):
        rows[section.__name__] = []
        for row in section(min(rounds, most), given.quick):
            print(f"{section.__name__}: {row.case}, {row.what}: {row.seconds:.3f} s, {row.ratio:.2f}", file=sys.stderr)
            rows[section.__name__].append(row)
    made, day = versions("robust-bench", "robust-models", "timm", *PEERS), datetime.now(UTC).strftime("%Y-%m-%d")
    record = {"card": card(), "versions": made, "date": day, "rounds": rounds}
    record |= {"rows": {name: [asdict(row) for row in some] for name, some in rows.items()}}
    publish(page(rows, made, rounds, day), record, given.out)


if __name__ == "__main__":
    main()
