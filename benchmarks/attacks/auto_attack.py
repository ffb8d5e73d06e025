"""AutoAttack against the published code: images left standing and CPU time, on trained models.

Both run in one process on one thread, one after the other on the same images, all of them in one batch. The published
code is the copy that the distribution easyrobust carries.

    nox -s bench -- attacks/auto_attack --out benchmarks/results/auto_attack.md
"""

import time
from dataclasses import asdict, dataclass

import torch
from _cases import CASES, Case
from _pages import arguments, made_with, prose, publish, table, versions
from _stored import Stored
from easyrobust.attacks.autoattack import AutoAttack
from robust_attacks import Report
from robust_attacks.report import Progress
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """What one implementation made of a case: per stage the images standing and the CPU seconds; in all the rest."""

    standing: dict[str, int]
    stage_seconds: dict[str, float]
    seconds: float
    beyond_eps: float


@dataclass(frozen=True)
class Comparison:
    """Both implementations on one case; images that only one of them broke."""

    case: str
    images: int
    goal: float
    ours: Outcome
    published: Outcome
    missed: list[int]
    won: list[int]
    passes: dict[str, tuple[int, int]]

    @property
    def ratio(self) -> float:
        """Our CPU time over theirs."""
        return self.ours.seconds / self.published.seconds


class Diary:
    """The CPU time at the end of every stage."""

    def __init__(self) -> None:
        self.standing: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._begun = self._last = time.process_time()

    def turn(self, stage: str) -> None:
        """A stage is over: what has passed since the last is its own."""
        now = time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def tell(self, progress: Progress) -> None:
        """Our progress, told during the stage and at its end."""
        self.turn(progress.stage)

    def log(self, line: str) -> None:
        """A line of the published code's log."""
        if line.startswith("robust accuracy after"):
            self.turn(line.removeprefix("robust accuracy after ").partition(":")[0].lower())
            self.standing[next(reversed(self.seconds))] = line.partition(": ")[2].partition("%")[0]  # type: ignore[assignment]

    @property
    def total(self) -> float:
        """Seconds since the diary was begun."""
        return time.process_time() - self._begun


def ours(case: Case, data: Stored, quick: bool) -> tuple[Report, Outcome]:
    """robust-attacks on a case."""
    suite, diary = case.suite(quick), Diary()
    report = suite.run(data.model, data.images, data.labels, batch_size=len(data.images), progress=diary.tell)
    assert report.adversarial is not None
    return report, Outcome(
        standing={stage: int(mask.sum()) for stage, mask in report.stages.items()},
        stage_seconds={stage: diary.seconds.get(stage, 0.0) for stage in report.stages},
        seconds=diary.total,
        beyond_eps=_beyond(case, data, report.adversarial),
    )


def published(case: Case, data: Stored) -> tuple[Tensor, Outcome]:
    """The published code on a case: which images stand, bool (N,), and the outcome."""
    peer = AutoAttack(data.model, norm=case.threat.name, eps=case.eps, seed=0, device="cpu")
    peer.logger = diary = Diary()
    adversarial = peer.run_standard_evaluation(data.images, data.labels, bs=len(data.images))
    total = diary.total
    with torch.no_grad():
        standing = data.model(adversarial).argmax(dim=1) == data.labels
    return standing, Outcome(
        standing={stage: round(float(share) / 100 * len(data.images)) for stage, share in diary.standing.items()},
        stage_seconds=diary.seconds,
        seconds=total,
        beyond_eps=_beyond(case, data, adversarial),
    )


def _beyond(case: Case, data: Stored, adversarial: Tensor) -> float:
    return max(float((case.threat.distance(data.images, adversarial) - case.eps).max()), 0.0)


def compare(case: Case, quick: bool) -> Comparison:
    """Run both on one case."""
    data = case.data(quick)
    case.suite(True).run(data.model, data.images, data.labels)  # loads kernels
    report, our_outcome = ours(case, data, quick)
    standing, their_outcome = published(case, data)
    return Comparison(
        case=case.title,
        images=len(data.images),
        goal=case.goal,
        ours=our_outcome,
        published=their_outcome,
        missed=(report.robust & ~standing).nonzero().flatten().tolist(),
        won=(~report.robust & standing).nonzero().flatten().tolist(),
        passes={part.name: (part.forwards, part.backwards) for part in report.parts},
    )


def page(rows: list[Comparison]) -> list[str]:
    """The measurements as Markdown."""
    return [
        "# AutoAttack: result and cost, beside the published code",
        "",
        *prose(
            "`standard`, seed 0, all images in one batch, both in one process on one thread. *Missed* counts images "
            "that stand here and not there, *won* the reverse; the ratio is our CPU time over theirs. *Beyond eps* is "
            "by how much the farthest adversarial image left the ball, measured in float64."
        ),
        "",
        made_with("easyrobust"),
        "",
        *table(
            [
                "case", "images", "standing, ours / published", "missed", "won", "CPU s, ours / published", "ratio",
                "goal", "beyond eps, ours / published",
            ],
            [
                [
                    row.case, row.images, _pair(row, lambda o: list(o.standing.values())[-1]), len(row.missed),
                    len(row.won), _pair(row, lambda o: f"{o.seconds:.1f}"), f"{row.ratio:.2f}", row.goal,
                    _pair(row, lambda o: f"{o.beyond_eps:.0e}" if o.beyond_eps else "0"),
                ]
                for row in rows
            ],
        ),
        "",
        "Stage by stage:",
        "",
        *table(
            ["case", "stage", "standing, ours / published", "CPU s, ours / published", "our forward / backward passes"],
            [
                [
                    row.case, stage, _pair(row, lambda o, stage=stage: o.standing[stage]),
                    _pair(row, lambda o, stage=stage: f"{o.stage_seconds[stage]:.1f}"),
                    " / ".join(f"{count:,}" for count in row.passes[stage]),
                ]
                for row in rows
                for stage in row.published.standing
            ],
            left=2,
        ),
    ]  # fmt: skip


def _pair(row: Comparison, show) -> str:  # type: ignore[no-untyped-def]
    return f"{show(row.ours)} / {show(row.published)}"


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__)
    torch.set_num_threads(1)
    rows = [compare(case, given.quick) for case in CASES]
    publish(page(rows), {"versions": versions("easyrobust"), "rows": [asdict(row) for row in rows]}, given.out)


if __name__ == "__main__":
    main()
