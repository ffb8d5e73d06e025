"""Images per second of every corruption at 32 pixels with the constants of CIFAR-C, severity 3, on one thread.

Ours alone, by CPU time; batches of 128.

    nox -s bench -- corruptions/small_images --out benchmarks/results/small_images.md
"""

import statistics
from functools import partial

import torch
from _clock import images_per_second
from _goals import ORIGINAL_AT_32
from _pages import arguments, made_with, prose, publish, table, versions
from _photographs import photographs
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

SEVERITY = 3
SPAN = 0.25  # CPU seconds a turn lasts at least


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=5, batch=128)
    torch.set_num_threads(1)
    images = photographs(given.batch, side=32)
    rounds, span = (1, 0.0) if given.quick else (given.rounds, SPAN)

    def batch(name: str) -> int:
        return len(corrupt(images, name, SEVERITY, preset="cifar"))

    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    turns = [{name: images_per_second(partial(batch, name), span) for name in names} for _ in range(rounds + 1)][1:]
    speeds = {name: [turn[name] for turn in turns] for name in names}
    middle = {name: statistics.median(some) for name, some in speeds.items()}
    slower = [name for name, published in ORIGINAL_AT_32.items() if middle[name] < published]
    lines = [
        "# Speed at 32 pixels",
        "",
        *prose(
            f"Images per second of CPU time on one thread, severity {SEVERITY} of CIFAR-C, in batches of "
            f"{given.batch}, free photographs made small; medians of {rounds} rounds, with the range. No peer that "
            "installs here has these constants. The last column is said of the original CIFAR code, its four slowest, "
            "on another machine: **not measured here**, a cross-check only."
        ),
        "",
        made_with("robust-bench"),
        "",
        *prose(
            "**Goal: not slower than the original.** Of the four that are published, "
            + (f"missed by {', '.join(slower)}." if slower else "met by all.")
        ),
        "",
        *table(
            ["corruption", "images per second", "published: original"],
            [
                [
                    name, f"{middle[name]:,.0f} [{min(some):,.0f}, {max(some):,.0f}]",
                    f"{ORIGINAL_AT_32[name]:g}" if name in ORIGINAL_AT_32 else "",
                ]
                for name, some in speeds.items()
            ],
        ),
    ]  # fmt: skip
    publish(lines, {"versions": versions("robust-bench"), "batch": given.batch, "speeds": speeds}, given.out)


if __name__ == "__main__":
    main()
