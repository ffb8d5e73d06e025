"""Two cores against one: the fifteen corruptions at 224 pixels, with two torch threads, and with two processes.

By the wall clock, in turn, round after round; so the machine must have two cores with nothing else to do. Two
processes share the images half and half, as the workers of a loader would.

    nox -s bench -- corruptions/scaling --out benchmarks/results/scaling.md
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import Pool

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from _photographs import photographs
from robust_bench.corruptions import CORRUPTIONS, corrupt

SEVERITY = 3
GOAL = 1.7  # times as fast as on one core
BATCH = 32
LONGEST = 90.0  # seconds after which no further round begins: threads that wait for a busy core take ten times as long


def suite(count: int, threads: int) -> None:
    """All fifteen on `count` images, on so many threads."""
    torch.set_num_threads(threads)
    images = photographs(BATCH)
    for start in range(0, count, BATCH):
        some = images[: min(BATCH, count - start)]
        for name in CORRUPTIONS:
            corrupt(some, name, SEVERITY)


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(pool: Pool, count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, after a small round that counts for nothing."""
    ways: dict[str, Callable[[int], object]] = {
        "one thread": lambda images: suite(images, 1),
        "two threads": lambda images: suite(images, 2),
        "two processes": lambda images: pool.starmap(suite, [(images // 2, 1)] * 2, chunksize=1),
    }
    for run in ways.values():
        run(2)
    times: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - start > LONGEST:
            break
        for name, run in ways.items():
            times[name].append(seconds(partial(run, count)))
    return times


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__, rounds=7)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        raise SystemExit("this machine lets us use one core only: there is nothing to compare")
    count, rounds = (2, 1) if given.quick else (2 * BATCH, given.rounds)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        times = measure(pool, count, rounds)
    one = times["one thread"]
    rounds = len(one)
    gains = {name: sorted(alone / took for alone, took in zip(one, some, strict=True)) for name, some in times.items()}
    gain = {name: statistics.median(values) for name, values in gains.items()}
    verdict = ", ".join(
        f"{name} {gain[name]:.2f} ({'met' if gain[name] >= GOAL else 'missed'})" for name in list(times)[1:]
    )
    lines = [
        "# Two cores against one",
        "",
        *prose(
            f"The fifteen corruptions at severity {SEVERITY} on {count} images of 224 pixels, by the wall clock; "
            f"medians of {rounds} interleaved rounds, with the range. The machine has {cores} cores, "
            f"on which {load:.1f} processes were running before."
        ),
        "",
        made_with("robust-bench"),
        "",
        *prose(f"**Goal: {GOAL} times as fast as one thread.** {verdict[0].upper() + verdict[1:]}."),
        "",
        *table(
            ["how", "s", "images per second", "times as fast"],
            [
                [
                    name, f"{statistics.median(some):.2f}", f"{count / statistics.median(some):.1f}",
                    f"{gain[name]:.2f} [{gains[name][0]:.2f}, {gains[name][-1]:.2f}]",
                ]
                for name, some in times.items()
            ],
        ),
    ]  # fmt: skip
    publish(
        lines,
        {"versions": versions("robust-bench"), "cores": cores, "load": load, "images": count, "seconds": times},
        given.out,
    )


if __name__ == "__main__":
    main()
