"""What the benchmarks share: their arguments, a table, and where the pages go."""

import argparse
import json
import os
import platform
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def arguments(
    description: str | None, rounds: int | None = None, batch: int | None = None, images: int | None = None
) -> argparse.Namespace:
    """`--out`, `--quick` and, where their number may be chosen, `--rounds`, `--batch` and `--images`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"interleaved repetitions (default {rounds})")
    if batch is not None:
        parser.add_argument("--batch", type=int, default=batch, help=f"images in a batch of ours (default {batch})")
    if images is not None:
        parser.add_argument("--images", type=int, default=images, help=f"images to look at (default {images})")
    parser.add_argument("--quick", action="store_true", help="hardly any steps: tries the script out, measures nothing")
    parser.add_argument("--out", type=Path, help="write the page here, and the numbers as .json beside it")
    return parser.parse_args()


def prose(text: str) -> list[str]:
    """A paragraph as lines."""
    return textwrap.wrap(text, 118)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> list[str]:
    """The lines of a Markdown table, whose first `left` columns are words and the others numbers."""
    lines = [heads, ["---" if place < left else "---:" for place in range(len(heads))], *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def made_with(*packages: str) -> str:
    """Versions and machine, as a line."""
    return ", ".join(f"{name} {number}" for name, number in versions(*packages).items()) + f"; {machine()}."


def versions(*packages: str) -> dict[str, str]:
    """Of Python, torch, robust-attacks and others that take part."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("robust-attacks", "torch", *packages)
    }


def machine() -> str:
    """The processor, as its maker names it where the system tells, and how the session lets it be used."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    steady = ", memory kept between passes" if "MALLOC_TRIM_THRESHOLD_" in os.environ else ""
    return f"{names[0] if names else platform.machine()}, one thread{steady}"


def publish(lines: Sequence[str], record: dict[str, Any], out: Path | None) -> None:
    """Print the page, and write it and the record where `out` says."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
