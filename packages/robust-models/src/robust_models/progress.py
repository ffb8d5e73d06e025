"""How far a download is, on one line of the terminal."""

import sys
import time
from collections.abc import Callable

Report = Callable[[int, int | None], None]


def silent(done: int, total: int | None) -> None:
    """Report nothing."""


def on_terminal(name: str) -> Report:
    """Return a report of bytes done and in total that redraws one line of stderr; silent if that is no terminal."""
    if not sys.stderr.isatty():
        return silent
    drawn = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal drawn
        now = time.monotonic()
        complete = done == total
        if now - drawn < 0.2 and not complete:
            return
        drawn = now
        share = f" of {total / 1e6:.1f} MB ({done / total:.0%})" if total else " MB"
        sys.stderr.write(f"\r{name}: {done / 1e6:.1f}{share}" + ("\n" if complete else ""))
        sys.stderr.flush()

    return report
