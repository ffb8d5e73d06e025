"""Peak memory of every corruption on 256 images of 224 pixels, beyond what goes in and what comes out.

Every corruption runs in a fresh child process, without a call before, so that tables and textures that are made on
first use count as well. Linux with glibc only: /proc tells the peak.

    nox -s bench -- corruptions/memory --out benchmarks/results/memory.md
"""

import ctypes
import multiprocessing
import sys
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from _photographs import photographs
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from torch import Tensor

SEVERITIES = (1, 3, 5)
GOAL = 1000.0  # MB
MB = 1e6


def resident(field: str) -> float:
    """Resident memory of this process in MB: "VmRSS" now, "VmHWM" at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / MB


def extra(images: Tensor, name: str, severity: int) -> float:
    """Peak beyond input and output in MB, in a child that inherits the images and whose peak starts at what it does."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        ctypes.CDLL(None).malloc_trim(0)  # or free blocks of the parent's would be taken, and not be counted
        before = resident("VmRSS")
        out = corrupt(images, name, severity)
        answers.put(resident("VmHWM") - before - out.nbytes / MB)

    process = context.Process(target=child)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{name} at severity {severity} ended with exit code {process.exitcode}")
    return float(answers.get())


def main() -> None:
    """Measure, print the page, and write it where `--out` says."""
    given = arguments(__doc__)
    if not sys.platform.startswith("linux"):
        raise SystemExit("peak memory is read from /proc, which only Linux has")
    torch.set_num_threads(1)
    count = 8 if given.quick else 256
    images = photographs(count)
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    found = {name: [extra(images, name, severity) for severity in SEVERITIES] for name in names}
    most = {name: max(values) for name, values in found.items()}
    over = [f"{name} ({value:.0f} MB)" for name, value in most.items() if value >= GOAL]
    verdict = f"Missed by {', '.join(over)}" if over else "Met by all corruptions"
    lines = [
        "# Memory",
        "",
        *prose(
            f"Peak of resident memory in MB beyond input and output (each {images.nbytes / MB:.1f} MB) while {count} "
            "images of 224 pixels are corrupted in one call, tables and textures made on first use included."
        ),
        "",
        made_with("robust-bench"),
        "",
        *prose(f"**Goal: below {GOAL:.0f} MB.** {verdict}."),
        "",
        *table(
            ["corruption", *(f"severity {severity}" for severity in SEVERITIES)],
            [[name, *(f"{value:.0f}" for value in values)] for name, values in found.items()],
        ),
    ]
    publish(lines, {"versions": versions("robust-bench"), "images": count, "megabytes": found}, given.out)


if __name__ == "__main__":
    main()
