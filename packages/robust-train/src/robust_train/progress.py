"""What a person sees while a model trains: a bar on a terminal, and lines in the log."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger("robust_train")


def describe(record: Mapping[str, Any]) -> str:
    """One readable line for a record of metrics.jsonl.

    Examples:
        >>> describe({"kind": "epoch", "epoch": 3, "update": 60, "loss": 0.51, "clean": 0.98, "robust": 0.7})
        'epoch 3, update 60: loss 0.51, clean 0.98, robust 0.7'
    """
    shown = {name: value for name, value in record.items() if name not in ("kind", "epoch", "update")}
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items() if isinstance(value, int | float)
    )
    return f"epoch {record['epoch']}, update {record['update']}: {numbers}"


@contextlib.contextmanager
def show(name: str, updates: int, done: int, visible: bool | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that takes each record: it logs one line and moves the bar.

    Args:
        name: of the run.
        updates: of the whole run.
        done: updates of an earlier start.
        visible: show the bar on the standard error stream; None shows it on a terminal only.
    """
    if not (sys.stderr.isatty() if visible is None else visible):
        yield lambda record: logger.info(describe(record))
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(name, total=updates, completed=done, speed="")

        def take(record: Mapping[str, Any]) -> None:
            logger.info(describe(record))
            bar.update(task, completed=record["update"])
            if "images_per_second" in record:
                bar.update(task, speed=f"{record['images_per_second']:.0f} images/s")

        yield take
