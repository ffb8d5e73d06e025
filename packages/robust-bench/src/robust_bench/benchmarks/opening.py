"""Finding the folder of a benchmark, and errors that say how it should look."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from robust_bench.benchmarks.entry import Entry, Options, locate


@contextlib.contextmanager
def opening(entry: Entry, options: Options, inner: str | None = None) -> Iterator[Path]:
    """Find the folder of a benchmark; what goes wrong with it inside the block is told with the layout that it needs.

    Args:
        entry: of the benchmark.
        options: of the user.
        inner: a folder in it where the data may lie one level deeper, e.g. "val".

    Raises:
        ValueError: if no folder is given, or it holds something else.
        FileNotFoundError: if something is missing.
    """
    root = locate(entry, options.data)
    try:
        yield root / inner if inner is not None and (root / inner).is_dir() else root
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {entry.layout}") from error
    except ValueError as error:
        raise ValueError(f"{error}. {entry.layout}") from error
