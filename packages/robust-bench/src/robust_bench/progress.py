"""A progress bar that shows what is known so far."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from robust_bench.metrics.intervals import clopper_pearson
from robust_bench.tables import percent


@dataclass(frozen=True)
class Bar:
    """What the evaluation reports to; without a terminal it does nothing."""

    progress: Progress | None
    task: TaskID

    def move(self, count: int) -> None:
        """Move by `count` images."""
        if self.progress is not None:
            self.progress.update(self.task, advance=count)

    def advance(self, count: int, label: str, correct: int, seen: int) -> None:
        """Move by `count` images and show that `correct` of `seen` were right under the condition `label`."""
        if self.progress is not None:
            self.progress.update(self.task, advance=count, running=running(label, correct, seen))


def running(label: str, correct: int, seen: int) -> str:
    """Write an accuracy so far with half the width of its interval, both in per cent.

    Examples:
        >>> running("clean", 98, 100)
        'clean 98.0 ± 3.4 %'
    """
    low, high = clopper_pearson(correct, seen)
    return f"{label} {percent(correct / seen)} ± {percent((high - low) / 2)} %"


@contextlib.contextmanager
def bar(name: str, total: int | None, show: bool | None) -> Iterator[Bar]:
    """Show a bar of `total` steps on the standard error stream while the block runs.

    Args:
        name: what is evaluated.
        total: number of steps (images times conditions), None if unknown.
        show: None shows it only on a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield Bar(None, TaskID(0))
        return
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[running]}", markup=False),
        console=console,
        transient=console.is_terminal,  # elsewhere, as in a log, its last state is what is written
    )
    with progress:
        yield Bar(progress, progress.add_task(Text(name).plain, total=total, running=""))
