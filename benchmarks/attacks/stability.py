"""How AutoAttack's result varies: with the seed, not with the batch size, and how far `fast` is from `standard`.

nox -s bench -- attacks/stability --out benchmarks/results/stability.md
"""

import time
from dataclasses import asdict, dataclass

import torch
from _cases import CASES, Case
from _pages import arguments, made_with, prose, publish, table, versions
from _stored import Stored
from robust_attacks import Report

SEEDS = range(5)
BATCH_SIZES = (1, 13, 200)
ROBUST = CASES[:2]


@dataclass(frozen=True)
class Invariance:
    """Images standing at each batch size; where verdicts differ, how near to the boundary the image was brought."""

    case: str
    images: int
    standing: list[int]
    margins: dict[int, float]


@dataclass(frozen=True)
class Gap:
    """`fast` beside `standard`: images standing, CPU seconds, forward passes and twice as many for backward ones."""

    case: str
    images: int
    standing: dict[str, int]
    seconds: dict[str, float]
    passes: dict[str, int]


def over_seeds(case: Case, quick: bool) -> list[dict[str, int]]:
    """Images standing after each stage, seed by seed."""
    data = case.data(quick, count=60)
    reports = [_run(case, data, quick, seed=seed) for seed in SEEDS]
    return [{stage: int(mask.sum()) for stage, mask in report.stages.items()} for report in reports]


def over_batch_sizes(case: Case, quick: bool) -> Invariance:
    """The same images at three batch sizes."""
    data = case.data(quick, count=20)
    reports = [_run(case, data, quick, batch_size=size) for size in BATCH_SIZES]
    verdicts = torch.stack([report.robust for report in reports])
    differ = (verdicts.any(dim=0) & ~verdicts.all(dim=0)).nonzero().flatten().tolist()
    return Invariance(
        case=case.title,
        images=len(data.images),
        standing=[int(report.robust.sum()) for report in reports],
        margins={row: _margin(data, reports, row) for row in differ},
    )


def _margin(data: Stored, reports: list[Report], row: int) -> float:
    """By how little the two largest logits of the adversarial image differ."""
    points = [
        report.adversarial[row] for report in reports if report.adversarial is not None and not report.robust[row]
    ]
    with torch.no_grad():
        best = data.model(torch.stack(points)).topk(2, dim=1).values
    return float((best[:, 0] - best[:, 1]).min())


def gap(case: Case, quick: bool) -> Gap:
    """Both suites on one case."""
    found = Gap(case=case.title, images=len(case.data(quick).images), standing={}, seconds={}, passes={})
    for version in ("standard", "fast"):
        start = time.process_time()
        report = _run(case, case.data(quick), quick, version=version)
        found.seconds[version] = time.process_time() - start
        found.standing[version] = int(report.robust.sum())
        found.passes[version] = sum(report.forwards.values()) + 2 * sum(report.backwards.values())
    return found


def _run(
    case: Case, data: Stored, quick: bool, *, version: str = "standard", seed: int = 0, batch_size: int = 200
) -> Report:
    suite = case.suite(quick, version, seed)
    return suite.run(data.model, data.images, data.labels, batch_size=batch_size)


def page(seeds: dict[str, list[dict[str, int]]], sizes: list[Invariance], gaps: list[Gap]) -> list[str]:
    """The measurements as Markdown."""
    return [
        "# How AutoAttack's result varies",
        "",
        made_with(),
        "",
        "With the seed: of the first 60 images those standing after each stage of `standard`.",
        "",
        *table(
            ["case", "stage", *(f"seed {seed}" for seed in SEEDS)],
            [[case, stage, *(each[stage] for each in found)] for case, found in seeds.items() for stage in found[0]],
            left=2,
        ),
        "",
        *prose(
            "Not with the batch size: draws, schedules and rules are the same bit for bit. Where a verdict differs all "
            "the same, the model has rounded otherwise in another batch; such images are listed with the margin of the "
            "adversarial image."
        ),
        "",
        *table(
            ["case", "images", "standing at batch size " + " / ".join(map(str, BATCH_SIZES)), "verdicts that differ"],
            [
                [row.case, row.images, " / ".join(map(str, row.standing)),
                 ", ".join(f"image {image} ({margin:.1e})" for image, margin in row.margins.items()) or "none"]
                for row in sizes
            ],
        ),
        "",
        "The screen `fast` beside `standard`; a backward pass counts as two forward passes.",
        "",
        *table(
            ["case", "images", "standing, fast / standard", "CPU s, fast / standard", "share of the passes"],
            [
                [row.case, row.images, f"{row.standing['fast']} / {row.standing['standard']}",
                 f"{row.seconds['fast']:.1f} / {row.seconds['standard']:.1f}",
                 f"{row.passes['fast'] / row.passes['standard']:.1%}"]
                for row in gaps
            ],
        ),
    ]  # fmt: skip


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__)
    torch.set_num_threads(1)
    gaps = [gap(case, given.quick) for case in CASES]
    sizes = [over_batch_sizes(case, given.quick) for case in ROBUST]
    seeds = {case.title: over_seeds(case, given.quick) for case in ROBUST}
    record = {"versions": versions(), "seeds": seeds}
    record |= {"batch sizes": [asdict(row) for row in sizes], "fast": [asdict(row) for row in gaps]}
    publish(page(seeds, sizes, gaps), record, given.out)


if __name__ == "__main__":
    main()
