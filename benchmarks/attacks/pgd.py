"""PGD against its pure cost and against the PGD of torchattacks and foolbox.

The pure cost is what no implementation can avoid: as many forward passes and gradients with respect to the images as
there are steps. Everything runs in one process on one thread, in turn, round after round; a ratio is CPU time divided
by the pure cost of the same round. The images still standing are counted without a random start, where all three take
the same steps and only their projections differ.

    nox -s bench -- attacks/pgd --out benchmarks/results/pgd.md
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import foolbox
import timm
import torch
import torchattacks
from _pages import arguments, made_with, prose, publish, table, versions
from _stored import stored
from robust_attacks import L2, PGD, ImageRandom, Linf, Threat
from torch import Tensor, nn
from torch.nn import functional

STEPS = 20
PEERS = ("torchattacks", "foolbox", "timm")
Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One model with its images and the two balls."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    threats: tuple[Threat, ...]


@dataclass(frozen=True)
class Measurement:
    """What one implementation took for one task and threat, and what it achieved."""

    model: str
    norm: str
    eps: float
    images: int
    attack: str
    milliseconds_per_step: float
    ratio: float
    ratio_low: float
    ratio_high: float
    standing: int | None
    excess: float | None


def small_cnn(count: int) -> Task:
    """A robust MNIST network on real digits."""
    data = stored("mnist_cnn_a_adv", count)
    return _task("CNN, 28 x 28 x 1", data.model, data.images, (Linf(eps=0.3), L2(eps=2.0)))


def resnet18(count: int) -> Task:
    """The ResNet-18 of timm at 32 pixels with random weights: speed does not depend on them."""
    model = timm.create_model("resnet18", num_classes=10)
    images = stored("cifar_cnn_a_adv", count).images
    return _task("ResNet-18, 32 x 32 x 3", model, images, (Linf(eps=2 / 255), L2(eps=0.25)))


def _task(name: str, model: nn.Module, images: Tensor, threats: tuple[Threat, ...]) -> Task:
    model.eval()
    with torch.no_grad():
        labels = model(images).argmax(dim=1)  # so that all images stand before the attack
    return Task(name, model, images, labels, threats)


def attacks_of(task: Task, threat: Threat, random_start: bool) -> dict[str, Attack]:
    """The same PGD from each library: steps, step size and start agree."""
    eps = float(threat.eps)  # type: ignore[arg-type]  # one number here
    step_size = 2.5 * eps / STEPS
    ours = PGD(threat=threat, steps=STEPS, random_start=random_start)
    theirs = {"Linf": torchattacks.PGD, "L2": torchattacks.PGDL2}[threat.name]
    torchattack = theirs(task.model, eps=eps, alpha=step_size, steps=STEPS, random_start=random_start)
    foolmodel = foolbox.PyTorchModel(task.model, bounds=(0, 1), device="cpu")
    fool = {"Linf": foolbox.attacks.LinfPGD, "L2": foolbox.attacks.L2PGD}[threat.name]
    foolattack = fool(abs_stepsize=step_size, steps=STEPS, random_start=random_start)
    return {
        "robust-attacks": lambda images, labels: ours(task.model, images, labels, random=ImageRandom(seed=0)),
        "torchattacks": torchattack,
        # `run` is the attack alone; calling the object adds a forward pass that judges the result.
        "foolbox": lambda images, labels: foolattack.run(
            foolmodel, images, foolbox.criteria.Misclassification(labels), epsilon=eps
        ),
    }


def pure(task: Task) -> Attack:
    """The unavoidable passes."""

    def run(images: Tensor, labels: Tensor) -> Tensor:
        for _ in range(STEPS):
            leaf = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(task.model(leaf), labels, reduction="sum"), leaf)
        return gradient

    return run


def seconds(attack: Attack, task: Task) -> float:
    """CPU time of one call."""
    start = time.process_time()
    attack(task.images, task.labels)
    return time.process_time() - start


def measure(task: Task, threat: Threat, rounds: int) -> list[Measurement]:
    """Time all implementations in turn; then compare what they return from the clean start."""
    runs = {"pure forward and backward": pure(task)} | attacks_of(task, threat, random_start=True)
    for run in runs.values():
        run(task.images, task.labels)  # warm up
    times = [{name: seconds(run, task) for name, run in runs.items()} for _ in range(rounds)]
    results = {name: attack(task.images, task.labels) for name, attack in attacks_of(task, threat, False).items()}
    rows = []
    for name in runs:
        ratios = sorted(took[name] / took["pure forward and backward"] for took in times)
        found = results.get(name)
        rows.append(
            Measurement(
                model=task.name,
                norm=threat.name,
                eps=float(threat.eps),  # type: ignore[arg-type]
                images=len(task.images),
                attack=name,
                milliseconds_per_step=1000 * statistics.median(took[name] for took in times) / STEPS,
                ratio=statistics.median(ratios),
                ratio_low=ratios[len(ratios) // 4],
                ratio_high=ratios[(3 * len(ratios)) // 4],
                standing=None if found is None else _standing(task, found),
                excess=None if found is None else float((threat.distance(task.images, found) - threat.eps).max()),
            )
        )
    return rows


@torch.no_grad()
def _standing(task: Task, images: Tensor) -> int:
    return int((task.model(images).argmax(dim=1) == task.labels).sum())


def page(rows: list[Measurement], rounds: int) -> list[str]:
    """The measurements as Markdown."""
    return [
        "# PGD: cost of a step, and result, side by side",
        "",
        *prose(
            f"{STEPS} steps of 2.5 eps / {STEPS}, one thread, CPU time, medians of {rounds} interleaved rounds, with "
            "the quartiles of the ratio in brackets. *Ratio* is the CPU time divided by that of the same number of "
            "forward passes and image gradients alone, with a random start. *Standing* counts the images that the "
            "attack did not break, *beyond eps* is by how much the farthest of them left the ball in float64, both "
            "without a random start. Under L2, robust-attacks projects exactly onto ball and box; the peers shrink and "
            "then clip. Labels are the model's own predictions; the CNN is a trained one on real digits, the ResNet-18 "
            "has random weights."
        ),
        "",
        made_with(*PEERS),
        "",
        *table(
            ["model", "threat", "implementation", "ms per step", "ratio to pure cost", "standing", "beyond eps"],
            [
                [
                    row.model,
                    f"{row.norm}, eps {row.eps:.4g}",
                    row.attack,
                    f"{row.milliseconds_per_step:.2f}",
                    f"{row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]",
                    "" if row.standing is None else f"{row.standing} of {row.images}",
                    "" if row.excess is None else f"{max(row.excess, 0):.1g}",
                ]
                for row in rows
            ],
            left=3,
        ),
    ]


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=15)
    warnings.filterwarnings("ignore", module="foolbox|eagerpy|torchattacks")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 1 if given.quick else given.rounds
    rows = []
    for task in (small_cnn(64), resnet18(32)):
        for threat in task.threats:
            rows += measure(task, threat, rounds)
    record = {"versions": versions(*PEERS), "steps": STEPS, "rounds": rounds, "rows": [asdict(row) for row in rows]}
    publish(page(rows, rounds), record, given.out)


if __name__ == "__main__":
    main()
