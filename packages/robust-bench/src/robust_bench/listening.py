"""The warnings of an evaluation, kept for its result."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robust_bench.files import write_durably
from robust_bench.warning import EvaluationWarning

FILE = "warnings.json"
"""In the folder of an evaluation."""


def remembered(folder: Path) -> list[str]:
    """The warnings of earlier runs of an evaluation.

    Raises:
        ValueError: if the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    try:
        return [str(text) for text in json.loads(file.read_text(encoding="utf-8"))]
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): remove it") from error


def remember(folder: Path, told: Sequence[str]) -> None:
    """Keep warnings beside the shards that they belong to, since those that go on will not see their reason again."""
    known = remembered(folder)
    if new := [text for text in told if text not in known]:
        write_durably(folder / FILE, json.dumps([*known, *new], ensure_ascii=False, indent=1) + "\n")


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Keep the texts of evaluation warnings, in order and each once, that are shown inside the block as ever."""
    told: list[str] = []
    with warnings.catch_warnings():
        show: Any = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EvaluationWarning) and str(message) not in told:
                told.append(str(message))
            show(message, category, *where, **more)

        warnings.showwarning = keep
        yield told
