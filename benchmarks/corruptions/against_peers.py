"""Images per second of every corruption at 224 pixels, severity 3, on one thread, against imagecorruptions and kornia.

The peers run in a process of their own and measure their own CPU time. Peer and we take turns, a fraction of a second
each, round after round, so that whatever else the machine does hits both; a ratio is between neighbours of a round.

    nox -s bench -- corruptions/against_peers --out benchmarks/results/against_peers.md
"""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial

import torch
from _clock import images_per_second
from _goals import ORIGINAL_SUITE_GOAL, PUBLISHED, SUITE_GOAL
from _pages import arguments, made_with, prose, publish, table, versions
from _peers import Peers
from _photographs import photographs
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from torch import Tensor

SEVERITY = 3
SPAN = 0.25  # CPU seconds a turn lasts at least
OURS, RELEASE, KORNIA = "robust-bench", "imagecorruptions", "kornia"
Speeds = Mapping[str, float]  # library -> images per second


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        """Over some values."""
        ranked = sorted(values)
        return Spread(statistics.median(ranked), ranked[len(ranked) // 4], ranked[(3 * len(ranked)) // 4])

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Row:
    """One corruption: images per second, and how many times as fast we are."""

    corruption: str
    ours: float
    release: float
    ratio: Spread
    goal: float
    kornia: float | None
    kornia_ratio: Spread | None

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.ratio.median >= self.goal

    @property
    def original(self) -> float:
        """The original script's images per second, derived: what was published of it, on the scale of this machine."""
        published = PUBLISHED[self.corruption]
        return self.release * published.original / published.head


@dataclass(frozen=True)
class Suite:
    """Seconds per image of all fifteen together."""

    ours: float
    release: float
    original: float
    ratio: Spread


def measure(peers: Peers, images: Tensor, rounds: int, span: float) -> dict[str, list[Speeds]]:
    """Let everybody take turns, after one turn that counts for nothing."""
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    found: dict[str, list[Speeds]] = {name: [] for name in names}

    def batch(name: str) -> int:
        return len(corrupt(images, name, SEVERITY))

    for number in range(rounds + 1):
        for name in names:
            least = span if number else 0.0
            speeds = {
                library: peers.speed(library, name, least)
                for library in (RELEASE, KORNIA)
                if (library, name) in peers.runs
            }
            speeds[OURS] = images_per_second(partial(batch, name), least)
            if number:
                found[name].append(speeds)
    return found


def rows_of(found: Mapping[str, list[Speeds]]) -> list[Row]:
    """Medians over the rounds."""

    def speed(name: str, library: str) -> float:
        return statistics.median(speeds[library] for speeds in found[name])

    def ratio(name: str, library: str) -> Spread:
        return Spread.of([speeds[OURS] / speeds[library] for speeds in found[name]])

    return [
        Row(
            corruption=name,
            ours=speed(name, OURS),
            release=speed(name, RELEASE),
            ratio=ratio(name, RELEASE),
            goal=PUBLISHED[name].goal,
            kornia=speed(name, KORNIA) if KORNIA in rounds[0] else None,
            kornia_ratio=ratio(name, KORNIA) if KORNIA in rounds[0] else None,
        )
        for name, rounds in found.items()
    ]


def suite_of(found: Mapping[str, list[Speeds]], rows: list[Row]) -> Suite:
    """The fifteen together, round by round."""
    fifteen = [found[name] for name in CORRUPTIONS]

    def seconds(library: str) -> list[float]:
        return [sum(1 / speeds[library] for speeds in together) for together in zip(*fifteen, strict=True)]

    ours, release = seconds(OURS), seconds(RELEASE)
    return Suite(
        ours=statistics.median(ours),
        release=statistics.median(release),
        original=sum(1 / row.original for row in rows if row.corruption in CORRUPTIONS),
        ratio=Spread.of([theirs / mine for theirs, mine in zip(release, ours, strict=True)]),
    )


def verdict(rows: list[Row], suite: Suite) -> list[str]:
    """Which goals are met, in words."""
    missed = [f"{row.corruption} ({row.ratio.median:.2f} of {row.goal:g})" for row in rows if not row.met]
    met = [row.corruption for row in rows if row.met]
    original = suite.original / suite.ours
    return [
        *prose(
            f"**All fifteen together** take {1000 * suite.ours:.1f} ms an image, with imagecorruptions "
            f"{1000 * suite.release:.1f} ms: {suite.ratio} times as fast, the goal of {SUITE_GOAL:g} is "
            f"{'met' if suite.ratio.median >= SUITE_GOAL else 'missed'}. The original script would take about "
            f"{1000 * suite.original:.0f} ms (derived, see below), {original:.0f} times as long, against a goal of "
            f"{ORIGINAL_SUITE_GOAL:g}: {'met' if original >= ORIGINAL_SUITE_GOAL else 'missed'}."
        ),
        "",
        *prose(f"**Goals met**, {len(met)} of {len(rows)}: {', '.join(met) or 'none'}."),
        "",
        *prose(f"**Goals missed**: {', '.join(missed) or 'none'}."),
    ]


def page(rows: list[Row], suite: Suite, peers: Mapping[str, str], batch: int, rounds: int) -> list[str]:
    """The measurements as Markdown."""
    return [
        "# Speed at 224 pixels, against imagecorruptions and kornia",
        "",
        *prose(
            f"Images per second of CPU time on one thread, severity {SEVERITY}, bytes in and out, crops of free "
            f"photographs; ours in batches of {batch}, imagecorruptions 1.1.2 image by image, which is how it works. "
            f"Medians of {rounds} rounds in which the libraries took turns; ratios between neighbours of a round, with "
            "their quartiles. The release of imagecorruptions gets two repairs: a renamed argument of scikit-image, "
            "without which it does not run, and the loop of glass_blur compiled by numba, as in its unreleased main "
            "branch. So it makes what that branch makes, within one grey level when the draws are the same. *Goal* is "
            "how many times as fast as that branch we mean to be. The last four corruptions are not among the fifteen."
        ),
        "",
        made_with("robust-bench"),
        "",
        *prose(f"The peers: {', '.join(f'{name} {number}' for name, number in peers.items())}."),
        "",
        *verdict(rows, suite),
        "",
        *table(
            ["corruption", "imagecorruptions", "ours", "ours / imagecorruptions", "goal", "met"],
            [
                [
                    row.corruption, f"{row.release:,.1f}", f"{row.ours:,.0f}", row.ratio, f"{row.goal:g}",
                    "yes" if row.met else "**no**",
                ]
                for row in rows
            ],
        ),
        "",
        *prose(
            "kornia has these at about the same strength; it takes floats that are ready in batches of 16 and gives "
            "floats, so that the way from bytes and back counts for us alone. Its brightness, contrast and saturation "
            "are other formulas, its elastic transform has no affine part."
        ),
        "",
        *table(
            ["corruption", "kornia", "ours", "ours / kornia"],
            [
                [row.corruption, f"{row.kornia:,.0f}", f"{row.ours:,.0f}", row.kornia_ratio]
                for row in rows
                if row.kornia
            ],
        ),
        "",
        *prose(
            "The original script does not install here. **Not measured here**: the last two columns follow from the "
            "published speeds of the original script and of the main branch of imagecorruptions, both on another "
            "machine, whose quotient scales the imagecorruptions of this page."
        ),
        "",
        *table(
            ["corruption", "published: original", "published: main branch", "original here, derived", "ours / derived"],
            [
                [
                    row.corruption, f"{PUBLISHED[row.corruption].original:g}", f"{PUBLISHED[row.corruption].head:g}",
                    f"{row.original:,.1f}", f"{row.ours / row.original:.1f}",
                ]
                for row in rows
            ],
        ),
    ]  # fmt: skip


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=9, batch=32)
    torch.set_num_threads(1)
    images = photographs(given.batch)
    rounds = 1 if given.quick else given.rounds
    with Peers(images) as peers:
        found = measure(peers, images, rounds, 0.0 if given.quick else SPAN)
        made = peers.versions
    rows = rows_of(found)
    suite = suite_of(found, rows)
    record = {
        "versions": versions("robust-bench"), "peers": made, "batch": given.batch, "rounds": rounds,
        "suite": asdict(suite), "rows": [asdict(row) | {"met": row.met, "derived": row.original} for row in rows],
        "speeds": found,
    }  # fmt: skip
    publish(page(rows, suite, made, given.batch, rounds), record, given.out)


if __name__ == "__main__":
    main()
